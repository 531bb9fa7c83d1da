"""Masked-language modelling told to transformers.Trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from finetune.core.console import say
from finetune.hardware.precision import precision_arguments
from finetune.loop.interruption import SaveAndStop, StopRequest
from finetune.loop.resumable import ResumableTrainer
from finetune.recipes.text import PretrainSchedule
from finetune.tasks.pretraining.batches import Batch, TrainBatches
from finetune.tasks.pretraining.model import evaluate_masked, masked_loss


class MaskedTrainer(ResumableTrainer):
    """Trainer over ready-made batches in their order; loss at masked positions only."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Mean cross-entropy over the masked positions."""
        with self.accelerator.autocast():
            return masked_loss(self.accelerator.unwrap_model(model), inputs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out loss and accuracy, logged as ``eval_loss`` and ``eval_accuracy``."""
        figures = evaluate_masked(
            self.model,
            eval_dataset or self.eval_dataset,
            self.args.device.type,
            "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32",
        )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class PretrainReport(TrainerCallback):
    """One line a log and one an evaluation: loss, tokens/s of the wall clock, time left."""

    def __init__(self, batches: TrainBatches) -> None:
        self.batches = batches

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock at the step the run begins or goes on with."""
        self._began = self._last = (time.perf_counter(), state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Training loss, learning rate, speed since the last line, time left at this speed."""
        if not logs or "loss" not in logs:
            return
        now = (time.perf_counter(), state.global_step)
        (then, step), self._last = self._last, now
        tokens = self.batches.tokens_before(now[1]) - self.batches.tokens_before(step)
        seconds = max(now[0] - then, 1e-9)
        left = (state.max_steps - now[1]) * seconds / max(1, now[1] - step)
        say(
            f"  step {now[1]}/{state.max_steps}  epoch {now[1] / self.batches.per_epoch:.2f}  "
            f"loss {logs['loss']:.4f}  lr {logs['learning_rate']:.2e}  "
            f"{tokens / seconds:,.0f} tokens/s  {left / 60:.0f} min left"
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Held-out loss and accuracy."""
        say(
            f"  step {state.global_step}  held-out loss {metrics['eval_loss']:.4f}  "
            f"masked accuracy {metrics['eval_accuracy']:.2%}"
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
    request: StopRequest,
) -> MaskedTrainer:
    """A Trainer ready to begin, or to go on from ``last_checkpoint``."""
    trainer = MaskedTrainer(
        model=model,
        args=pretrain_arguments(training, len(batches), device, precision, seed, checkpoints),
        train_dataset=batches,
        eval_dataset=held_out,
        data_collator=_only_item,
        callbacks=[PretrainReport(batches), SaveAndStop(request, training.save_steps)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def pretrain_arguments(
    training: PretrainSchedule,
    steps: int,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
) -> TrainingArguments:
    """The section's values under Trainer's names.

    beta2 0.98 is RoBERTa's (Liu et al. 2019). warmup_stable_decay cools down by 1-sqrt, the
    best of the shapes compared by Hägele et al. 2024 (arXiv:2405.18392).
    """
    cooldown: dict[str, Any] = {}
    if training.scheduler == "warmup_stable_decay":
        decay_steps = max(1, round(steps * training.decay_ratio))
        cooldown = {"num_decay_steps": decay_steps, "decay_type": "1-sqrt"}
    return TrainingArguments(
        output_dir=str(checkpoints),
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        use_cpu=device == "cpu",
        **precision_arguments(precision),
        max_steps=steps,
        per_device_train_batch_size=1,  # one ready-made batch
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_beta2=0.98,
        warmup_steps=min(training.warmup_steps, steps),
        lr_scheduler_type=training.scheduler,
        lr_scheduler_kwargs=cooldown,
        optim="adamw_torch_fused",
        logging_steps=training.logging_steps,
        eval_strategy="steps",
        eval_steps=training.eval_steps,
        save_strategy="steps",
        save_steps=training.save_steps,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _only_item(items: list[Batch]) -> Batch:
    return items[0]
