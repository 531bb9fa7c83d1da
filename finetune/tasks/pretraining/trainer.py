"""Masked-language modelling told to transformers.Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback, TrainingArguments

from finetune.loop.ledger import BatchShape, Ledger
from finetune.loop.planned_batches import Batch, PlannedTrainer
from finetune.loop.trainer_setup import training_arguments, without_own_report
from finetune.recipes.pretraining import PretrainSchedule
from finetune.tasks.pretraining.batches import TrainBatches
from finetune.tasks.pretraining.model import evaluate_masked, masked_logits, masked_loss

ADAM_BETA2 = 0.98  # RoBERTa's: Liu et al. 2019


class MaskedTrainer(PlannedTrainer):
    """Trainer over TrainBatches; loss at masked positions only."""

    last_resort = "training.gradient_checkpointing=true, or a smaller training.max_length"

    def __init__(self, *, tokens_per_batch: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.tokens_per_batch = tokens_per_batch
        self.model_accepts_loss_kwargs = True  # compute_loss takes the step's masked positions

    def advice(self, smaller: BatchShape) -> str:
        """The recipe's keys for a smaller micro-batch."""
        times = smaller.accumulation // self.accumulation
        return (
            f"training.tokens_per_batch={self.tokens_per_batch // times} "
            f"training.gradient_accumulation_steps={smaller.accumulation}"
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Cross-entropy over the step's masked positions, this batch's share of the mean."""
        processes = self.accelerator.num_processes
        with self.accelerator.autocast():
            if processes == 1 and self.args.gradient_accumulation_steps == 1:
                return masked_loss(self.accelerator.unwrap_model(model), inputs)
            whole = processes > 1  # DDP has to see the forward pass
            bare = model if whole else self.accelerator.unwrap_model(model)
            total = functional.cross_entropy(
                *masked_logits(bare, inputs, whole=whole), reduction="sum"
            )
            return total * processes / num_items_in_batch.clamp(min=1)

    def measure(self) -> dict[str, float]:
        """Loss and accuracy on the held-out texts, whose batches the processes share."""
        return evaluate_masked(
            self.accelerator.unwrap_model(self.model),
            self.eval_dataset,
            self.args.device.type,
            self.precision,
        )


def build_trainer(
    *,
    model: torch.nn.Module,
    batches: TrainBatches,
    held_out: list[Batch],
    training: PretrainSchedule,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
    ledger: Ledger,
    callbacks: Sequence[TrainerCallback],
) -> MaskedTrainer:
    """A Trainer ready to begin, or to go on from its last checkpoint."""
    trainer = MaskedTrainer(
        model=model,
        tokens_per_batch=training.tokens_per_batch,
        accumulation=training.gradient_accumulation_steps,
        args=pretrain_arguments(
            training, len(batches), ledger.shape, device, precision, seed, checkpoints
        ),
        train_dataset=batches.cut(ledger.shape, training.gradient_accumulation_steps),
        eval_dataset=held_out,
        callbacks=callbacks,
        ledger=ledger,
    )
    return without_own_report(trainer)


def pretrain_arguments(
    training: PretrainSchedule,
    batches: int,
    shape: BatchShape,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
) -> TrainingArguments:
    """The section's values under Trainer's names.

    warmup_stable_decay cools down by 1-sqrt, the best of the shapes compared by Hägele et al.
    2024 (arXiv:2405.18392).
    """
    steps = math.ceil(batches / training.gradient_accumulation_steps)
    cooldown: dict[str, Any] = {}
    if training.scheduler == "warmup_stable_decay":
        decay_steps = max(1, round(steps * training.decay_ratio))
        cooldown = {"num_decay_steps": decay_steps, "decay_type": "1-sqrt"}
    return training_arguments(
        training,
        accumulation=shape.accumulation,
        device=device,
        precision=precision,
        seed=seed,
        checkpoints=checkpoints,
        max_steps=steps,
        per_device_train_batch_size=1,  # one planned batch
        adam_beta2=ADAM_BETA2,
        warmup_steps=min(training.warmup_steps, steps),
        lr_scheduler_kwargs={**cooldown, **training.scheduler_kwargs},
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=training.eval_steps,
        metric_for_best_model="loss",
        greater_is_better=False,
    )
