"""A recipe's training section told to transformers.Trainer, the same way for every task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from finetune.core.libraries import warmup_arguments
from finetune.hardware.gpu import keep_to_one_gpu
from finetune.hardware.precision import precision_arguments
from finetune.recipes.sections import OptimisationSection

NEVER = 10**9
KEPT_FIGURES = ("epoch", "loss", "learning_rate", "grad_norm")


def training_arguments(
    training: OptimisationSection,
    *,
    accumulation: int,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
    **own: Any,
) -> TrainingArguments:
    """The section's values under Trainer's names; ``own`` is what a task sets beside them.

    ``label_names`` is given because PEFT's forward hides ``labels`` from Trainer. Saving is
    asked for by SaveAndStop; ``save_strategy`` only makes Trainer keep the best step.
    """
    values = {
        "output_dir": str(checkpoints),
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "use_cpu": device == "cpu",
        **precision_arguments(precision),
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": training.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        **warmup_arguments(training.warmup_steps, training.warmup_ratio),
        "lr_scheduler_type": training.scheduler,
        "lr_scheduler_kwargs": dict(training.scheduler_kwargs),
        "optim": training.optimizer,
        "label_names": ["labels"],
        "logging_steps": training.logging_steps,
        "save_strategy": "steps",
        "save_steps": NEVER,
        "dataloader_pin_memory": device == "cuda",
        "dataloader_num_workers": training.dataloader_workers,
    }
    return keep_to_one_gpu(TrainingArguments(**{**values, **own}))


def early_stopping(training: Any) -> list[TrainerCallback]:
    """Trainer's callback where the section has a patience, else none."""
    if training.early_stopping_patience is None:
        return []
    return [
        EarlyStoppingCallback(training.early_stopping_patience, training.early_stopping_threshold)
    ]


def without_own_report(trainer: Trainer) -> Any:
    """The trainer without what it prints by itself: ProgressReport speaks."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def training_history(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainer's log as one entry a step: step, epoch, loss, learning_rate, eval_* figures."""
    history: dict[int, dict[str, Any]] = {}
    for entry in entries:
        row = history.setdefault(entry["step"], {"step": entry["step"]})
        for key, value in entry.items():
            timing = key.endswith(("_runtime", "_per_second"))
            if key in KEPT_FIGURES or (key.startswith("eval_") and not timing):
                row[key] = value
    return list(history.values())
