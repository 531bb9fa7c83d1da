"""Train to the end: from the last checkpoint, through interruptions and lack of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from finetune.checkpoints import Checkpoint, last_checkpoint, read_checkpoint
from finetune.errors import KotuneError
from finetune.interruption import SaveAndStop, StopRequest, stop_on_signal
from finetune.job import Job
from finetune.ledger import Ledger
from finetune.method_training import fit_trainer_to_method
from finetune.out_of_memory import MicroBatchTooLarge
from finetune.processes import is_main_process, process_count
from finetune.progress import EvaluateLastStep, ProgressReport
from finetune.rows_trainer import RowsTrainer
from finetune.trainer_setup import build_trainer

Report = Callable[[str], None]


def train_to_end(
    job: Job,
    model: torch.nn.Module,
    rows: dict[str, Dataset],
    work: Path,
    report: Report,
    callbacks: Sequence[TrainerCallback] = (),
) -> Checkpoint:
    """The checkpoint of the finished training, reached now or in an earlier start.

    Raises KeyboardInterrupt after saving where someone asked to stop, KotuneError where a
    single row is too much for the memory.
    """
    checkpoint = last_checkpoint(work / "steps", report)
    training = job.recipe.training
    ledger = (
        Ledger(**checkpoint.ledger)
        if checkpoint
        else Ledger(training.batch_size, training.gradient_accumulation_steps)
    )
    ledger.starts += 1
    with stop_on_signal() as request:
        while checkpoint is None or not checkpoint.finished:
            if checkpoint is not None:
                report(f"going on from step {checkpoint.step}")
            trainer = _build(job, model, rows, work, ledger, request, checkpoint, callbacks)
            checkpoint = _run(trainer, checkpoint, ledger, report)
            del trainer
            gc.collect()
            if job.device == "cuda":
                torch.cuda.empty_cache()
    return checkpoint


def _build(
    job: Job,
    model: torch.nn.Module,
    rows: dict[str, Dataset],
    work: Path,
    ledger: Ledger,
    request: StopRequest,
    checkpoint: Checkpoint | None,
    more: Sequence[TrainerCallback],
) -> RowsTrainer:
    training = job.recipe.training
    callbacks: list[TrainerCallback] = [
        ProgressReport(ledger, training.best_metric),
        EvaluateLastStep(),
        SaveAndStop(request, training.save_steps),
    ]
    if is_main_process():
        purge = checkpoint.step + 1 if checkpoint else None  # what the cut-off start wrote after it
        callbacks.append(TensorBoardCallback(SummaryWriter(work / "tensorboard", purge_step=purge)))
    trainer = build_trainer(
        model=model,
        tokenizer=job.tokenizer,
        train_rows=rows["train"],
        validation_rows=rows["validation"],
        training=training,
        device=job.device,
        precision=job.precision,
        seed=job.recipe.seed,
        checkpoints=work / "steps",
        ledger=ledger,
        callbacks=[*callbacks, *more],
    )
    fit_trainer_to_method(trainer, job.recipe.adapter)
    return trainer


def _run(
    trainer: RowsTrainer, checkpoint: Checkpoint | None, ledger: Ledger, report: Report
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


def _shrink(trainer: RowsTrainer, ledger: Ledger, report: Report) -> None:
    """Halve the micro-batch and save the step that was whole last."""
    trainer.model.zero_grad(set_to_none=True)
    smaller = ledger.shape.halved(process_count())
    if process_count() > 1:  # the other processes wait within the step: none can go back
        raise KotuneError(
            "out of memory",
            received=f"a micro-batch of {ledger.micro_batch} rows in {process_count()} processes",
            next_step=f"training.batch_size={smaller.micro_batch} "
            f"training.gradient_accumulation_steps={smaller.accumulation}",
        )
    step = trainer.state.global_step
    report(
        f"  out of memory in step {step + 1} with {ledger.micro_batch} rows at once: going on "
        f"with {smaller.micro_batch} rows, {smaller.accumulation} times a step"
    )
    ledger.record_out_of_memory(step, smaller)
    trainer.save_checkpoint()
