"""What a speech run works with: base, data, processor and model, found and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.adapters.attach import count_parameters
from finetune.core.errors import DataError
from finetune.data.recordings import (
    SpeechCorpus,
    Waves,
    characters_of,
    load_speech_corpus,
    unknown_characters,
    without_unknown,
)
from finetune.hardware.precision import choose_device, choose_precision
from finetune.models.source import BaseModel, resolve_base
from finetune.recipes.speech import SpeechRecipe
from finetune.tasks.speech.ctc import SpeechSettings, read_speech_settings
from finetune.tasks.speech.model import (
    attach_speech_adapter,
    build_wav2vec2,
    load_processor,
    load_wav2vec2,
    make_processor,
    prepare_training,
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class SpeechJob:
    """What a speech run works with, once everything was found and checked."""

    recipe: SpeechRecipe
    base: BaseModel | None  # None: from scratch
    corpus: SpeechCorpus
    device: str
    precision: str


@dataclass(frozen=True)
class Ready:
    """The model to train, and what turns text into labels and frames into text."""

    model: Any
    tokenizer: Any
    settings: SpeechSettings
    new_head: bool
    waves: dict[str, Waves]


def prepare_job(recipe: SpeechRecipe) -> SpeechJob:
    """Find base model, device and data; the cheap mistakes are told first."""
    source = recipe.model.source
    base = resolve_base(source, recipe.model.revision) if source else None
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    return SpeechJob(recipe, base, load_speech_corpus(recipe.data, recipe.seed), device, precision)


def prepare_model(job: SpeechJob, folder: Path, report: Report) -> Ready:
    """Processor and model, written and ready to train; recordings at the model's rate."""
    recipe, target = job.recipe, folder / "model"
    processor = load_processor(job.base) if job.base else None
    new_head = processor is None
    if processor is None:
        rate_hz = recipe.architecture.sampling_rate_hz
        processor = make_processor(characters_of(job.corpus.train["text"]), rate_hz, target)
    else:
        processor.save_pretrained(target)
    _drop_unknown(job.corpus, processor.tokenizer, report)
    labels = len(processor.tokenizer)
    if job.base is None:
        blank = processor.tokenizer.pad_token_id
        model = build_wav2vec2(recipe.architecture, labels, blank, recipe.seed)
        model.kotune_new_modules = ["lm_head"]
    else:
        model = load_wav2vec2(job.base, labels=labels if new_head else None, seed=recipe.seed)
    frozen = recipe.model.freeze_feature_encoder
    frozen = job.base is not None if frozen is None else frozen
    prepare_training(model, recipe.augment, frozen=frozen)
    model.config.save_pretrained(target)
    adapted = attach_speech_adapter(model, recipe.adapter).to(job.device)
    settings = read_speech_settings(target, recipe.export.chunk_s, recipe.export.stride_s)
    waves = {name: Waves(frame, settings.rate_hz) for name, frame in job.corpus.splits.items()}
    count = count_parameters(adapted)
    report(
        f"{recipe.adapter.method} on {job.base.source if job.base else 'a new wav2vec2'}: "
        f"{count.trainable:,} of {count.total:,} parameters trained, {labels} characters, "
        f"{job.precision} on {job.device}, {torch.get_num_threads()} threads"
    )
    return Ready(adapted, processor.tokenizer, settings, new_head, waves)


def _drop_unknown(corpus: SpeechCorpus, tokenizer: Any, report: Report) -> None:
    """Characters the vocabulary lacks go from every transcript, and are told."""
    known = set(tokenizer.get_vocab())
    for name, frame in corpus.splits.items():
        unknown = unknown_characters(frame["text"], known)
        if unknown:
            frame["text"] = [without_unknown(text, known) for text in frame["text"]]
            told = ", ".join(f"{one!r} {count}" for one, count in sorted(unknown.items())[:10])
            report(f"  dropped from {name}, not in the vocabulary: {told}")
        if not any(frame["text"]):
            raise DataError(
                f"the model's vocabulary has no character of {name}'s transcripts",
                received=frame["file"].iloc[0],
                next_step="data.text_case=lower, or upper",
            )
