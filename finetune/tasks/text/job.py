"""What a run works with: base, data, tokenizer, device, and the model ready to train."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from finetune.adapters.attach import attach_adapter
from finetune.adapters.method_training import start_method
from finetune.checks.answers import seen_signs
from finetune.checks.before import Before, check_before_training
from finetune.core.preparation import Preparation
from finetune.core.processes import is_sharded
from finetune.data.reviews import Corpus, load_corpus, read_labels
from finetune.hardware.cpu_kernels import attention_for, quicken_dropout
from finetune.hardware.frozen_base import HALVES, Originals, place_model
from finetune.hardware.host_memory import shape_memory
from finetune.hardware.precision import choose_device, choose_precision
from finetune.loop.checkpoints import disk_errors
from finetune.models.encoding import choose_preparation
from finetune.models.loading import load_base, load_base_tokenizer
from finetune.models.source import BaseModel, resolve_base
from finetune.recipes.files import check_recipe
from finetune.recipes.methods import METHODS
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.task import Job
from finetune.tasks.text.losses import RowLoss, row_loss

DTYPES = {"fp32": torch.float32, **HALVES}


@dataclass(frozen=True)
class TextJob(Job):
    """What a run works with, once everything was found and checked."""

    recipe: FinetuneRecipe
    base: BaseModel
    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    before: Before = field(default_factory=Before)

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 over every split's rows, texts and labels."""
        return self.corpus.fingerprint

    @property
    def preparation(self) -> Preparation:
        """How a text becomes what the tokenizer reads."""
        return choose_preparation(self.recipe.model.preparation, self.tokenizer)

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their ids."""
        return list(self.recipe.data.labels.values())

    @property
    def loss(self) -> RowLoss:
        """What a row costs."""
        recipe = self.recipe
        return row_loss(recipe.training, recipe.data.labels, self.corpus.train["label"])


def settle_labels(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """The recipe with the classes of its data where it says ``data.labels: auto``.

    Raises DataError, and RecipeError where other keys do not go together with them.
    """
    if recipe.data.labels != "auto":
        return recipe
    content = recipe.model_dump(exclude_unset=True)
    content["data"]["labels"] = read_labels(recipe.data)
    return check_recipe(FinetuneRecipe, content, recipe.name)


def prepare_job(recipe: FinetuneRecipe) -> TextJob:
    """Find base model, device, data and tokenizer; the cheap mistakes are told first."""
    recipe = settle_labels(recipe)
    base = resolve_base(**recipe.base_model)
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    corpus = load_corpus(recipe.data, recipe.seed, recipe.model.preparation.of_texts)
    job = TextJob(recipe, base, device, precision, corpus, load_base_tokenizer(base))
    frames = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
    texts = {name: frame["text"].tolist() for name, frame in frames.items()}
    before = check_before_training(recipe, base, job.tokenizer, job.preparation, texts)
    signs = (*before.signs, *seen_signs(corpus.summary))
    return replace(job, before=before, signs=signs)


def recipe_attention(recipe: FinetuneRecipe, device: str, precision: str) -> str | None:
    """The attention that the recipe trains with; None: the library's choice."""
    if recipe.training.cpu_kernels == "library":
        return None
    return attention_for(device, precision, recipe.model.max_length, recipe.model.dropout)


def adapt_model(model: torch.nn.Module, recipe: FinetuneRecipe, device: str) -> torch.nn.Module:
    """The base model with the recipe's adapter attached, head trainable; on a CPU faster dropout.

    ``device`` is where it will train.
    """
    adapter = recipe.adapter
    adapted = attach_adapter(
        model,
        method=adapter.method,
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        gradient_checkpointing=recipe.training.gradient_checkpointing,
    )
    quick = device == "cpu" and recipe.training.cpu_kernels == "auto"
    return quicken_dropout(adapted) if quick else adapted


def build_model(
    job: TextJob, folder: Path | None = None
) -> tuple[torch.nn.Module, Originals | None]:
    """Base model with a new head, adapter attached, on its device, ready to train.

    And the originals of frozen weights that are held otherwise (``hold_frozen``), or None; of a
    model that FSDP will spread nothing is held. ``folder`` takes their file.
    """
    recipe = job.recipe
    shape_memory(recipe, job.device)
    model = load_base(
        job.base,
        job.labels,
        quantize_4bit=METHODS[recipe.adapter.method].quantised,
        compute_dtype=DTYPES[job.precision],
        device=job.device,
        seed=recipe.seed,
        dropout=recipe.model.dropout,
        attention=recipe_attention(recipe, job.device, job.precision),
    )
    adapted, held = adapt_model(model, recipe, job.device), None
    if is_sharded():
        adapted.to(job.device)
    else:
        with disk_errors(folder / "steps") if folder else contextlib.nullcontext():
            held = place_model(adapted, recipe, job.precision, job.device, folder)
    start_method(
        adapted, recipe, job.tokenizer, job.preparation, job.corpus.train["text"], job.device
    )
    return adapted, held
