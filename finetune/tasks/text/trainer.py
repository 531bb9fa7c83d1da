"""The Trainer of classified rows: their order, their loss, the best weights, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
)

from finetune.core.preparation import Preparation
from finetune.core.processes import divide_batch, process_count
from finetune.loop.ledger import BatchShape, Ledger, is_out_of_memory
from finetune.loop.resumable import ResumableTrainer
from finetune.loop.row_order import EpochOrder, LongestFirst, add_blank_row
from finetune.loop.trainer_setup import early_stopping, training_arguments, without_own_report
from finetune.metrics.classification import classification_metrics
from finetune.models.encoding import encode_texts
from finetune.recipes.metrics import added_figures, greater_is_better
from finetune.recipes.text import TrainingSection
from finetune.tasks.text.losses import RowLoss


class RowsTrainer(ResumableTrainer):
    """Rows in the order of ``train_order``; evaluation in smaller batches where memory ends."""

    def __init__(self, *args: Any, train_order: Sampler[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.train_order = train_order

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As it is; out of memory halves the evaluation batch and begins again."""
        while True:
            try:
                return super().evaluate(*args, **kwargs)
            except (RuntimeError, MemoryError) as fault:
                smallest = self.args.per_device_eval_batch_size == 1
                if not is_out_of_memory(fault) or smallest or self.args.world_size > 1:
                    raise
            self.args.per_device_eval_batch_size //= 2

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.train_order

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return LongestFirst(self.eval_dataset["length"])  # eval_dataset has lost this column


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
    max_length: int,
    train_rows: Dataset,
    validation_rows: Dataset,
    training: TrainingSection,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
    ledger: Ledger,
    callbacks: Sequence[TrainerCallback],
    loss: RowLoss,
) -> RowsTrainer:
    """A Trainer that evaluates, stops early and saves the best; ready to begin or to go on.

    The micro-batch is the ledger's, divided among the processes. Raises RecipeError.
    """
    arguments = rows_arguments(training, ledger.shape, device, precision, seed, checkpoints)
    several = arguments.world_size > 1
    trainer = RowsTrainer(
        model=model,
        args=arguments,
        train_dataset=add_blank_row(train_rows) if several else train_rows,
        eval_dataset=validation_rows,
        data_collator=DataCollatorWithPadding(
            tokenizer, pad_to_multiple_of=padding_multiple(device, max_length)
        ),
        compute_loss_func=loss,
        compute_metrics=_trainer_metrics,
        callbacks=[*callbacks, *early_stopping(training)],
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
    return without_own_report(trainer)


def rows_arguments(
    training: TrainingSection,
    shape: BatchShape,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
) -> TrainingArguments:
    """The section's values under Trainer's names, its batches divided among the processes."""
    processes = process_count()
    return training_arguments(
        training,
        accumulation=shape.accumulation,
        device=device,
        precision=precision,
        seed=seed,
        checkpoints=checkpoints,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=divide_batch(shape.micro_batch, processes),
        per_device_eval_batch_size=max(1, training.eval_batch_size // processes),
        eval_strategy="steps" if training.eval_steps else "epoch",
        eval_steps=training.eval_steps,
        metric_for_best_model=training.best_metric,
        greater_is_better=greater_is_better(training.best_metric),
    )


def _trainer_metrics(prediction: Any) -> dict[str, float]:
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    labels, logits = np.asarray(prediction.label_ids), np.asarray(logits, dtype=np.float32)
    figures = classification_metrics(labels, logits)
    # the loss, too: Trainer's own counts the rows twice that fill up the last batch
    names = ("loss", "accuracy", "f1_binary", "f1_macro", "f1_micro", "f1_weighted")
    values = {name: getattr(figures, name) for name in names}
    found = {name: value for name, value in values.items() if value is not None}
    return {**found, **added_figures(labels, logits)}


def padding_multiple(device: str, max_length: int) -> int | None:
    """8 on CUDA, whose tensor cores like it, unless that leads beyond the model's positions."""
    return 8 if device == "cuda" and max_length % 8 == 0 else None
