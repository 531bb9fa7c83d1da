"""The model of a job, ready to train: held as the recipe asks, in a precision it can take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import set_seed

from finetune.adapters.attach import ParameterCount, count_parameters
from finetune.hardware.frozen_base import Originals
from finetune.models.encoding import encode_texts
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.task import build_tried
from finetune.tasks.text.job import TextJob, build_model
from finetune.tasks.text.losses import RowLoss

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Ready:
    """The job in the precision it trains in, its model, and what to give back to it afterwards."""

    job: TextJob
    model: torch.nn.Module
    parameters: ParameterCount
    originals: Originals | None


def ready_model(
    job: TextJob, rows: Dataset, report: Callable[[str], None], folder: Path | None = None
) -> Ready:
    """Build the model, try a step on the longest possible row, and fall back where that fails.

    What the recipe leaves to ``auto``, kotune's kernels and a half precision, gives way to the
    library's and to fp32. ``folder`` takes the originals' file. Raises RecipeError where the
    recipe asked for what does not work, ModelError where nothing does.
    """
    return build_tried(
        job,
        lambda changed, recipe: _build(changed, recipe, folder),
        lambda ready: (_batch(job, rows), _loss),
        report,
    )


def _build(job: TextJob, recipe: FinetuneRecipe, folder: Path | None) -> Ready:
    """The model as ``recipe`` says, in the job's precision; the job keeps its own recipe."""
    set_seed(recipe.seed)
    model, held = build_model(dataclasses.replace(job, recipe=recipe), folder)
    parameters = count_parameters(model)
    if recipe.training.gradient_checkpointing:  # as Trainer does once more
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Ready(job, model, parameters, held)


def _batch(job: TextJob, rows: Dataset) -> dict[str, torch.Tensor]:
    """A row of ``max_length`` tokens, made of the longest text, and the shortest one, padded."""
    lengths, texts = rows["length"], job.corpus.train["text"].tolist()
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    length = job.recipe.model.max_length
    encoded = encode_texts(
        job.tokenizer,
        [" ".join([texts[order[-1]]] * length), texts[order[0]]],
        job.preparation,
        max_length=length,
        padding=True,
        return_tensors="pt",
    )
    return {**encoded, "labels": torch.tensor([0, len(job.labels) - 1])}


def _loss(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The loss of the training, without label smoothing."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return RowLoss(0.0)(model(**inputs), batch["labels"])
