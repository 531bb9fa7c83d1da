"""The model of a job, ready to train: held as the recipe asks, in a precision it can take."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import set_seed

from finetune.adapters.attach import ParameterCount, count_parameters
from finetune.core.errors import RecipeError
from finetune.core.processes import is_sharded
from finetune.hardware.frozen_base import Originals, hold_frozen
from finetune.hardware.precision import failing_step
from finetune.loop.checkpoints import disk_errors
from finetune.tasks.text.job import TextJob, build_model

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
    """Build the model and try one step in a half precision; ``auto`` falls back to fp32.

    Some architectures have constants that only fp32 holds (DeBERTa under autocast,
    huggingface/transformers#35332). ``folder`` takes the originals' file. Raises RecipeError
    where the precision was asked for by name.
    """
    ready = _build(job, folder)
    if job.precision == "fp32" or is_sharded():
        return ready
    fault = failing_step(ready.model, _batch(job, rows), job.device, job.precision)
    if fault is None:
        return ready
    asked = job.recipe.training.precision
    if asked != "auto":
        raise RecipeError(
            f"training.precision={asked} does not work with this model",
            received=fault,
            allowed="auto, fp32",
            next_step="training.precision=fp32",
        )
    report(f"  {job.precision} does not work with this model ({fault}): it trains in fp32")
    del ready
    gc.collect()
    return _build(dataclasses.replace(job, precision="fp32"), folder)


def _build(job: TextJob, folder: Path | None) -> Ready:
    set_seed(job.recipe.seed)
    model = build_model(job)
    parameters, held = count_parameters(model), None
    with disk_errors(folder / "steps") if folder else contextlib.nullcontext():
        if not is_sharded():
            held = hold_frozen(model, job.recipe, job.precision, folder)
    return Ready(job, model, parameters, held)


def _batch(job: TextJob, rows: Dataset) -> dict[str, torch.Tensor]:
    """The shortest and the longest row of training: one of them is padded."""
    lengths = rows["length"]
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    chosen = rows.select([order[0], order[-1]])
    encoded = {name: chosen[name] for name in ("input_ids", "attention_mask")}
    batch = dict(job.tokenizer.pad(encoded, return_tensors="pt"))
    return {**batch, "labels": torch.tensor(chosen["labels"])}
