"""CTC told to transformers.Trainer: planned batches in, word error rate out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from finetune.core.processes import process_count, process_rank
from finetune.data.audio import to_float
from finetune.data.recordings import Waves
from finetune.loop.ledger import BatchShape, Ledger, is_out_of_memory
from finetune.loop.planned_batches import (
    EvaluateAtSteps,
    PlannedTrainer,
    sum_over_processes,
)
from finetune.loop.trainer_setup import (
    NEVER,
    early_stopping,
    training_arguments,
    without_own_report,
)
from finetune.metrics.word_errors import count_errors
from finetune.recipes.speech import SpeechTrainingSection
from finetune.tasks.speech.batches import SpeechBatches
from finetune.tasks.speech.ctc import BATCH_S, SpeechSettings
from finetune.tasks.speech.model import TorchFrames
from finetune.tasks.speech.transcription import transcribe_waves

ADAM_BETA2 = 0.98  # wav2vec2's own: Baevski et al. 2020, section 4.2


class CtcTrainer(PlannedTrainer):
    """Trainer over SpeechBatches; evaluated by its transcripts."""

    last_resort = (
        "training.gradient_checkpointing=true, a smaller data.max_seconds or augment.joined, "
        "or adapter.method=lora"
    )

    def __init__(
        self, *, settings: SpeechSettings, references: list[str], batch_seconds: float, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.settings, self.references = settings, references
        self.batch_seconds = batch_seconds
        self.model_accepts_loss_kwargs = False  # the model's own mean, over a batch's recordings

    def advice(self, smaller: BatchShape) -> str:
        """The recipe's keys for a smaller micro-batch."""
        times = smaller.accumulation // self.accumulation
        return (
            f"training.batch_seconds={self.batch_seconds / times:g} "
            f"training.gradient_accumulation_steps={smaller.accumulation}"
        )

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The model's loss; that of a part of a batch by its share of the recordings."""
        weight = inputs.pop("weight", None)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss if weight is None else loss * weight

    def measure(self) -> dict[str, float]:
        """Word error rate of the validation recordings, which the processes share."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        frames = TorchFrames(model, self.args.device.type, self.precision)
        own = list(range(process_rank(), len(self.eval_dataset), process_count()))
        transcripts = transcribe_stored(self.eval_dataset, self.settings, frames, own)
        model.train(was_training)
        counts = count_errors([self.references[place] for place in own], transcripts)
        errors, words = sum_over_processes(
            [float(counts.word_errors.sum()), float(counts.words.sum())], self.args.device
        )
        return {"wer": errors / max(1.0, words)}


def transcribe_stored(
    waves: Waves,
    settings: SpeechSettings,
    frames: TorchFrames,
    places: Sequence[int] | None = None,
) -> list[str]:
    """Text of each recording, in order; each as a whole, in batches by length.

    Out of memory halves the batches and begins again.
    """
    places = range(len(waves)) if places is None else places
    samples = [to_float(waves[place]) for place in places]
    batch_s = BATCH_S
    while True:
        try:
            return transcribe_waves(samples, settings, frames, batch_s=batch_s)
        except (RuntimeError, MemoryError) as fault:
            longest_s = max(map(len, samples)) / settings.rate_hz
            if not is_out_of_memory(fault) or batch_s <= longest_s:
                raise
        batch_s /= 2


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
    """A Trainer that evaluates, keeps the best weights and may stop early; begins or goes on.

    Evaluated every ``eval_steps`` optimizer steps, or at each epoch's end.
    """
    accumulation = training.gradient_accumulation_steps
    at_epochs = [] if training.eval_steps else [EvaluateAtSteps(batches.last_steps(accumulation))]
    trainer = CtcTrainer(
        model=model,
        settings=settings,
        references=list(references),
        batch_seconds=training.batch_seconds,
        accumulation=accumulation,
        args=training_arguments(
            training,
            accumulation=ledger.accumulation,
            device=device,
            precision=precision,
            seed=seed,
            checkpoints=checkpoints,
            max_steps=math.ceil(len(batches) / accumulation),
            per_device_train_batch_size=1,  # one planned batch
            adam_beta2=ADAM_BETA2,
            remove_unused_columns=False,
            eval_strategy="steps",
            eval_steps=training.eval_steps or NEVER,
            metric_for_best_model="wer",
            greater_is_better=False,
        ),
        train_dataset=batches.cut(ledger.shape, accumulation),
        eval_dataset=validation,
        callbacks=[*callbacks, *at_epochs, *early_stopping(training)],
        ledger=ledger,
    )
    return without_own_report(trainer)
