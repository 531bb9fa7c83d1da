"""CTC told to transformers.Trainer: ready-made batches in, word error rate out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)

from finetune.data.audio import to_float
from finetune.data.recordings import Waves
from finetune.hardware.precision import precision_arguments
from finetune.loop.ledger import Ledger
from finetune.loop.resumable import ResumableTrainer
from finetune.metrics.word_errors import word_error_rate
from finetune.recipes.speech import SpeechTrainingSection
from finetune.tasks.speech.batches import Batch, SpeechBatches
from finetune.tasks.speech.ctc import SpeechSettings
from finetune.tasks.speech.model import TorchFrames
from finetune.tasks.speech.transcription import transcribe_waves
from finetune.tasks.text.trainer import NEVER


class CtcTrainer(ResumableTrainer):
    """Trainer over ready-made batches in their order; evaluated by its transcripts."""

    def __init__(self, *, settings: SpeechSettings, references: list[str], **rest: Any) -> None:
        super().__init__(**rest)
        self.settings, self.references = settings, references

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Word error rate of the validation recordings, logged as ``eval_wer``."""
        precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32"
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        frames = TorchFrames(model, self.args.device.type, precision)
        transcripts = transcribe_stored(self.eval_dataset, self.settings, frames)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_wer": word_error_rate(self.references, transcripts)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def transcribe_stored(waves: Waves, settings: SpeechSettings, frames: TorchFrames) -> list[str]:
    """Text of each recording, in order; each as a whole, in batches by length."""
    return transcribe_waves(
        [to_float(waves[place]) for place in range(len(waves))], settings, frames
    )


def build_speech_trainer(
    *,
    model: torch.nn.Module,
    batches: SpeechBatches,
    validation: Waves,
    references: Sequence[str],
    settings: SpeechSettings,
    training: SpeechTrainingSection,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
    ledger: Ledger,
    callbacks: Sequence[TrainerCallback],
) -> CtcTrainer:
    """A Trainer that evaluates, keeps the best weights and may stop early; begins or goes on."""
    patience = training.early_stopping_patience
    early_stopping = [] if patience is None else [EarlyStoppingCallback(patience)]
    trainer = CtcTrainer(
        model=model,
        settings=settings,
        references=list(references),
        args=_arguments(training, batches, device, precision, seed, checkpoints),
        train_dataset=batches,
        eval_dataset=validation,
        data_collator=_only_item,
        callbacks=[*callbacks, *early_stopping],
        ledger=ledger,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _arguments(
    training: SpeechTrainingSection,
    batches: SpeechBatches,
    device: str,
    precision: str,
    seed: int,
    checkpoints: Path,
) -> TrainingArguments:
    """The section's values under Trainer's names.

    Saving is asked for by SaveAndStop; ``save_strategy`` only makes Trainer keep the best step.
    """
    eval_steps = training.eval_steps or batches.per_epoch
    return TrainingArguments(
        output_dir=str(checkpoints),
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        use_cpu=device == "cpu",
        **precision_arguments(precision),
        max_steps=max(1, len(batches) // training.gradient_accumulation_steps),
        per_device_train_batch_size=1,  # one ready-made batch
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=training.max_grad_norm,
        warmup_ratio=training.warmup_ratio,
        lr_scheduler_type=training.scheduler,
        optim="adamw_torch_fused",
        label_names=["labels"],
        remove_unused_columns=False,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=eval_steps,
        save_steps=NEVER,
        logging_steps=training.logging_steps,
        metric_for_best_model="wer",
        greater_is_better=False,
        dataloader_pin_memory=device == "cuda",
    )


def _only_item(items: list[Batch]) -> Batch:
    return items[0]
