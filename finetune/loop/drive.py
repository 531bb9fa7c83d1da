"""Train to the end: from the last checkpoint, through interruptions and lack of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from finetune.core.errors import KotuneError
from finetune.core.processes import is_main_process, process_count
from finetune.loop.checkpoints import Checkpoint, last_checkpoint, read_checkpoint
from finetune.loop.interruption import SaveAndStop, StopRequest, stop_on_signal
from finetune.loop.ledger import Ledger, MicroBatchTooLarge
from finetune.loop.progress import EvaluateLastStep, ProgressReport, Watch
from finetune.loop.resumable import ResumableTrainer

Report = Callable[[str], None]
Builder = Callable[[Ledger, Sequence[TrainerCallback]], ResumableTrainer]


def train_to_end(
    build: Builder, fresh: Ledger, watch: Watch, work: Path, report: Report
) -> Checkpoint:
    """The checkpoint of the finished training, reached now or in an earlier start.

    ``build`` makes a trainer for a ledger, ``fresh`` is the first's. Checkpoints lie in
    ``work``/steps. One of another schedule is gone on from, be it finished or not. Raises
    KeyboardInterrupt after saving where someone asked to stop, KotuneError where a single row
    is too much for the memory.
    """
    checkpoint = last_checkpoint(work / "steps", report)
    ledger = Ledger(**checkpoint.ledger) if checkpoint else fresh
    ledger.starts += 1
    if checkpoint and ledger.schedule != fresh.schedule:
        checkpoint = replace(checkpoint, finished=False)
        ledger.schedule = fresh.schedule
    with stop_on_signal() as request:
        while checkpoint is None or not checkpoint.finished:
            if checkpoint is not None:
                report(f"going on from step {checkpoint.step}")
            trainer = build(ledger, _callbacks(ledger, watch, work, request, checkpoint))
            checkpoint = _run(trainer, checkpoint, ledger, report)
            del trainer
            gc.collect()
            if watch.device == "cuda":
                torch.cuda.empty_cache()
    return checkpoint


def _callbacks(
    ledger: Ledger, watch: Watch, work: Path, request: StopRequest, checkpoint: Checkpoint | None
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [
        ProgressReport(ledger, watch),
        EvaluateLastStep(),
        SaveAndStop(request, watch.save_steps),
    ]
    if is_main_process():
        purge = checkpoint.step + 1 if checkpoint else None  # what the cut-off start wrote after it
        callbacks.append(TensorBoardCallback(SummaryWriter(work / "tensorboard", purge_step=purge)))
    return callbacks


def _run(
    trainer: ResumableTrainer, checkpoint: Checkpoint | None, ledger: Ledger, report: Report
) -> Checkpoint:
    """Train until the end, an interruption or a lack of memory; the checkpoint of that step."""
    too_large = False
    try:
        trainer.resume(checkpoint)
    except MicroBatchTooLarge:
        too_large = True
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressReport):
                callback.close()
            elif isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.close()
    if too_large:
        _shrink(trainer, ledger, report)
    # accelerate leaves autocast wrapped around forward: what follows begins without it
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    trainer.accelerator.free_memory()
    stopped = any(getattr(one, "interrupted", False) for one in trainer.callback_handler.callbacks)
    if stopped:
        report(f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}")
        raise KeyboardInterrupt
    return read_checkpoint(trainer.last_checkpoint)


def _shrink(trainer: ResumableTrainer, ledger: Ledger, report: Report) -> None:
    """Halve the micro-batch and save the step that was whole last."""
    trainer.model.zero_grad(set_to_none=True)
    smaller = ledger.shape.halved(process_count(), trainer.last_resort)
    if process_count() > 1:  # the other processes wait within the step: none can go back
        raise KotuneError(
            "out of memory",
            received=f"a micro-batch of {ledger.micro_batch} rows in {process_count()} processes",
            next_step=trainer.advice(smaller),
        )
    step = trainer.state.global_step
    report(
        f"  out of memory in step {step + 1} with {ledger.micro_batch} rows at once: going on "
        f"with {smaller.micro_batch} rows, {smaller.accumulation} times a step"
    )
    ledger.record_out_of_memory(step, smaller)
    trainer.save_checkpoint()
