"""The recipe's training section, told to transformers.Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)

from finetune.core.errors import RecipeError
from finetune.core.preparation import Preparation
from finetune.core.processes import divide_batch, process_count
from finetune.hardware.precision import precision_arguments
from finetune.loop.ledger import Ledger
from finetune.loop.out_of_memory import BatchShape
from finetune.loop.row_order import EpochOrder, add_blank_row
from finetune.metrics.classification import classification_metrics
from finetune.models.encoding import encode_texts
from finetune.recipes.text import TrainingSection
from finetune.tasks.text.rows_trainer import RowLoss, RowsTrainer

NEVER = 10**9


def tokenize_rows(
    frame: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    padding: str,
    *,
    preparation: Preparation,
) -> Dataset:
    """input_ids, attention_mask, labels and length of each row, truncated to ``max_length``."""
    encoded = encode_texts(
        tokenizer,
        frame["text"],
        preparation,
        max_length=max_length,
        padding=False if padding == "dynamic" else padding,
    )
    lengths = [sum(mask) for mask in encoded["attention_mask"]]
    return Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": frame["label"].tolist(),
            "length": lengths,
        }
    )


def build_trainer(
    *,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Dataset,
    validation_rows: Dataset,
    training: TrainingSection,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
    ledger: Ledger,
    callbacks: Sequence[TrainerCallback],
) -> RowsTrainer:
    """A Trainer that evaluates, stops early and saves the best; ready to begin or to go on.

    The micro-batch is the ledger's, divided among the processes. Raises RecipeError.
    """
    if "8bit" in training.optimizer and device == "cpu":
        raise RecipeError(
            f"training.optimizer={training.optimizer} needs CUDA", allowed="adamw_torch_fused"
        )
    arguments = training_arguments(training, ledger.shape, device, precision, seed, checkpoints)
    several = arguments.world_size > 1
    early_stopping = (
        [EarlyStoppingCallback(training.early_stopping_patience, training.early_stopping_threshold)]
        if training.early_stopping_patience is not None
        else []
    )
    trainer = RowsTrainer(
        model=model,
        args=arguments,
        train_dataset=add_blank_row(train_rows) if several else train_rows,
        eval_dataset=validation_rows,
        data_collator=DataCollatorWithPadding(
            tokenizer, pad_to_multiple_of=8 if device == "cuda" else None
        ),
        compute_loss_func=RowLoss(training.label_smoothing),
        compute_metrics=_trainer_metrics,
        callbacks=[*callbacks, *early_stopping],
        ledger=ledger,
        train_order=EpochOrder(
            train_rows["length"],
            effective_batch=ledger.shape.effective,
            micro_batch=ledger.micro_batch,
            seed=seed,
            group_by_length=training.group_by_length and training.padding == "dynamic",
            blank_row=len(train_rows) if several else None,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def training_arguments(
    training: TrainingSection,
    shape: BatchShape,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
) -> TrainingArguments:
    """The section's values under Trainer's names.

    ``label_names`` is given because PEFT's forward hides ``labels`` from Trainer. Saving is
    asked for by SaveAndStop; ``save_strategy`` only makes Trainer keep the best step.
    """
    every = "steps" if training.eval_steps else "epoch"
    processes = process_count()
    return TrainingArguments(
        output_dir=str(checkpoints),
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        use_cpu=device == "cpu",
        **precision_arguments(precision),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=divide_batch(shape.micro_batch, processes),
        per_device_eval_batch_size=max(1, training.eval_batch_size // processes),
        gradient_accumulation_steps=shape.accumulation,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_steps=training.warmup_steps,
        warmup_ratio=training.warmup_ratio,
        lr_scheduler_type=training.scheduler,
        lr_scheduler_kwargs=dict(training.scheduler_kwargs),
        optim=training.optimizer,
        label_names=["labels"],
        eval_strategy=every,
        eval_steps=training.eval_steps,
        logging_steps=training.logging_steps,
        save_strategy="steps",
        save_steps=NEVER,
        metric_for_best_model=training.best_metric,
        greater_is_better=training.best_metric != "loss",
        dataloader_pin_memory=device == "cuda",
    )


def training_history(state: Any) -> list[dict[str, Any]]:
    """Trainer's log as one entry a step: step, epoch, loss, learning_rate, eval_* figures."""
    kept = ("epoch", "loss", "learning_rate", "grad_norm")
    history: dict[int, dict[str, Any]] = {}
    for entry in state.log_history:
        row = history.setdefault(entry["step"], {"step": entry["step"]})
        for key, value in entry.items():
            timing = key.endswith(("_runtime", "_per_second"))
            if key in kept or (key.startswith("eval_") and not timing):
                row[key] = value
    return list(history.values())


def _trainer_metrics(prediction: Any) -> dict[str, float]:
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    figures = classification_metrics(
        np.asarray(prediction.label_ids), np.asarray(logits, dtype=np.float32)
    )
    # the loss, too: Trainer's own counts the rows twice that fill up the last batch
    names = ("loss", "accuracy", "f1_binary", "f1_macro", "f1_micro", "f1_weighted")
    values = {name: getattr(figures, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
