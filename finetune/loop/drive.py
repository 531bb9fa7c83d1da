"""Train to the end: from the last checkpoint, through interruptions and lack of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from finetune.adapters.method_training import fit_trainer_to_method
from finetune.core.errors import KotuneError
from finetune.core.processes import is_main_process, process_count
from finetune.loop.checkpoints import Checkpoint, last_checkpoint, read_checkpoint
from finetune.loop.interruption import SaveAndStop, StopRequest, stop_on_signal
from finetune.loop.ledger import Ledger
from finetune.loop.out_of_memory import MicroBatchTooLarge
from finetune.loop.progress import EvaluateLastStep, ProgressReport
from finetune.loop.resumable import ResumableTrainer
from finetune.tasks.text.job import Job
from finetune.tasks.text.rows_trainer import RowsTrainer
from finetune.tasks.text.trainer import build_trainer

Report = Callable[[str], None]
Builder = Callable[[Ledger, Sequence[TrainerCallback]], ResumableTrainer]


@dataclass(frozen=True)
class Watch:
    """What is told of a training (``eval_<metric>``), how often it saves, where it runs."""

    metric: str
    save_steps: int | None
    device: str


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
    training = job.recipe.training

    def build(ledger: Ledger, own: Sequence[TrainerCallback]) -> RowsTrainer:
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
            callbacks=[*own, *callbacks],
        )
        fit_trainer_to_method(trainer, job.recipe.adapter)
        return trainer

    fresh = Ledger(training.batch_size, training.gradient_accumulation_steps)
    watch = Watch(training.best_metric, training.save_steps, job.device)
    return drive_to_end(build, fresh, watch, work, report)


def drive_to_end(
    build: Builder, fresh: Ledger, watch: Watch, work: Path, report: Report
) -> Checkpoint:
    """The same for any trainer: ``build`` makes one for a ledger, ``fresh`` the first's.

    Checkpoints lie in ``work``/steps.
    """
    checkpoint = last_checkpoint(work / "steps", report)
    ledger = Ledger(**checkpoint.ledger) if checkpoint else fresh
    ledger.starts += 1
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
        ProgressReport(ledger, watch.metric),
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
