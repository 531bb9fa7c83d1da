"""What a speech run works with: base, data, processor and model, found and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.adapters.attach import count_parameters
from finetune.core.errors import DataError, ModelError
from finetune.core.processes import is_main_process, process_count, wait_for_processes
from finetune.data.recordings import (
    SpeechCorpus,
    Waves,
    characters_of,
    load_speech_corpus,
    unknown_characters,
    without_unknown,
)
from finetune.hardware.cpu_kernels import quicken_dropout
from finetune.hardware.host_memory import shape_memory
from finetune.hardware.precision import choose_device, choose_precision
from finetune.models.source import resolve_base
from finetune.models.token_ids import hold_token_ids
from finetune.recipes.speech import SpeechRecipe
from finetune.tasks.speech.batches import SpeechBatches
from finetune.tasks.speech.ctc import SpeechSettings
from finetune.tasks.speech.features import hold_features
from finetune.tasks.speech.model import (
    attach_speech_adapter,
    build_wav2vec2,
    folder_settings,
    load_processor,
    load_wav2vec2,
    make_processor,
    prepare_training,
    save_processor,
)
from finetune.tasks.task import Built, Job, Report


@dataclass(frozen=True)
class SpeechJob(Job):
    """What a speech run works with, once everything was found and checked."""

    recipe: SpeechRecipe
    corpus: SpeechCorpus

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 over the rows of the three splits."""
        return self.corpus.fingerprint


@dataclass(frozen=True)
class SpeechBuilt(Built):
    """The model to train, its batches, and what turns frames into text.

    ``folder`` holds processor and config; ``before`` the metrics of a pretrained model before
    training, under "before".
    """

    folder: Path
    settings: SpeechSettings
    new_head: bool
    waves: dict[str, Waves]
    batches: SpeechBatches
    before: dict[str, Any]


def prepare_job(recipe: SpeechRecipe) -> SpeechJob:
    """Find base model, device and data; the cheap mistakes are told first."""
    base = resolve_base(**recipe.base_model) if recipe.base_model else None
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    return SpeechJob(recipe, base, device, precision, load_speech_corpus(recipe.data, recipe.seed))


def build_model(job: SpeechJob, work: Path, report: Report) -> SpeechBuilt:
    """Processor and model, written to ``work`` and ready to train; recordings at its rate."""
    recipe, target = job.recipe, work / "model"
    shape_memory(recipe, job.device)
    processor, new_head = open_processor(job, target)
    _drop_unknown(job.corpus, processor.tokenizer, report)
    model = _load_model(job, processor.tokenizer, new_head=new_head)
    if is_main_process():
        model.config.save_pretrained(target)
    wait_for_processes()
    adapted = attach_speech_adapter(model, recipe.adapter)
    if job.device == "cpu" and recipe.training.cpu_kernels == "auto":
        adapted = quicken_dropout(adapted)
    adapted = adapted.to(job.device)
    _report_model(job, adapted, len(processor.tokenizer), report)
    chunks = (recipe.export.chunk_s, recipe.export.stride_s)
    settings = folder_settings(
        target, *chunks, str(target) if job.base is None else job.base.source
    )
    hold_token_ids(processor.tokenizer, target)
    hold_features(settings, target)
    waves = {name: Waves(frame, settings.rate_hz) for name, frame in job.corpus.splits.items()}
    batches = plan_training(job, settings, waves["train"], processor.tokenizer)
    return SpeechBuilt(job, adapted, None, target, settings, new_head, waves, batches, before={})


def open_processor(job: SpeechJob, folder: Path) -> tuple[Any, bool]:
    """The Wav2Vec2Processor, written to ``folder``, and whether its characters are new."""
    from transformers import Wav2Vec2Processor

    processor = load_processor(job.base) if job.base else None
    new_head = processor is None
    if is_main_process() and processor is None:
        rate_hz = job.recipe.architecture.sampling_rate_hz
        make_processor(characters_of(job.corpus.train["text"]), rate_hz, folder)
    elif is_main_process():
        save_processor(processor, folder)
    wait_for_processes()
    return Wav2Vec2Processor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    ), new_head


def _load_model(job: SpeechJob, tokenizer: Any, *, new_head: bool) -> Any:
    """The wav2vec2 without its adapter, prepared for training."""
    recipe, labels = job.recipe, len(tokenizer)
    if job.base is None:
        model = build_wav2vec2(recipe.architecture, labels, tokenizer.pad_token_id, recipe.seed)
        model.kotune_new_modules = ["lm_head"]
    else:
        model = load_wav2vec2(job.base, labels=labels if new_head else None, seed=recipe.seed)
        _check_blank(model.config, tokenizer)
    frozen = recipe.model.freeze_feature_encoder
    frozen = job.base is not None if frozen is None else frozen
    prepare_training(model, recipe.augment, frozen=frozen)
    return model


def _check_blank(config: Any, tokenizer: Any) -> None:
    """Raise ModelError where CTC's blank, which is config.json's padding, is a character."""
    blank, padding = config.pad_token_id, tokenizer.pad_token_id
    token = tokenizer.convert_ids_to_tokens(blank)
    if blank != padding and token not in tokenizer.all_special_tokens:
        raise ModelError(
            "config.json's pad_token_id, which CTC takes for its blank, is a character",
            received=f"pad_token_id {blank}, {token!r} to the tokenizer, whose own is {padding}",
            next_step=f"pad_token_id {padding} in the model's config.json",
        )


def plan_training(
    job: SpeechJob, settings: SpeechSettings, waves: Waves, tokenizer: Any
) -> SpeechBatches:
    """Every micro-batch of the training."""
    recipe, train = job.recipe, job.corpus.train
    training = recipe.training
    steps = training.max_steps
    return SpeechBatches(
        waves,
        train["seconds"].tolist(),
        train["text"].tolist(),
        lambda text: tokenizer(text).input_ids,
        augment=recipe.augment,
        masked=settings.masked,
        batch_seconds=training.batch_seconds,
        epochs=training.epochs,
        batches=None if steps is None else steps * training.gradient_accumulation_steps,
        seed=recipe.seed,
        least_samples=_least_samples(settings, recipe.augment.mask_time_length),
        normalized=settings.normalize,
    )


def _least_samples(settings: SpeechSettings, mask_time_length: int) -> int:
    """SpecAugment refuses sequences shorter than its mask."""
    return settings.receptive_field + (mask_time_length + 1) * settings.hop


def _report_model(job: SpeechJob, model: Any, labels: int, report: Report) -> None:
    count = count_parameters(model)
    report(
        f"{job.recipe.method} on {job.base.source if job.base else 'a new wav2vec2'}: "
        f"{count.trainable:,} of {count.total:,} parameters trained, {labels} characters, "
        f"{job.precision} on {job.device}, {torch.get_num_threads()} threads"
        + (f", {process_count()} processes" if process_count() > 1 else "")
    )


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
