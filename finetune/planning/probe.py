"""How fast this machine takes the recipe's steps: a few real ones, for about ten seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from finetune.hardware.frozen_base import place_model
from finetune.hardware.host_memory import shape_memory
from finetune.models.loading import load_base
from finetune.models.source import BaseModel
from finetune.planning.memory import StepShape
from finetune.planning.step import make_batch, make_optimizer, run_step, vocabulary_of
from finetune.recipes.methods import METHODS
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import DTYPES, adapt_model, recipe_attention

PROBE_S = 10.0


@dataclass(frozen=True)
class Speed:
    """Seconds of a micro-batch: ``fixed_s`` + ``token_s`` for each token, padding included."""

    fixed_s: float
    token_s: float
    steps: int
    largest_tokens: int

    def micro_batch_s(self, tokens: float) -> float:
        """Seconds of a micro-batch of so many tokens."""
        return self.fixed_s + self.token_s * tokens


def probe_speed(
    recipe: FinetuneRecipe, base: BaseModel, shape: StepShape, seconds: float = PROBE_S
) -> Speed:
    """Take real steps of 1, 2, 4 … rows on random weights of the exact architecture.

    Building the model is not counted in ``seconds``; at least three steps are taken.
    """
    model = _build(recipe, base, shape)
    optimizer = make_optimizer(model, recipe.training, shape.device, fake=False)
    tokens, times = [], []
    began = time.perf_counter()
    rows = 1
    _timed_step(model, optimizer, recipe, shape, rows)  # the first one also allocates
    while True:
        times.append(_timed_step(model, optimizer, recipe, shape, rows))
        tokens.append(rows * shape.length)
        left = seconds - (time.perf_counter() - began)
        if len(times) >= 2 and left < 2.2 * times[-1]:
            break
        rows = min(2 * rows, shape.rows)
    return _fit(np.array(tokens), np.array(times))


def _fit(tokens: np.ndarray, times: np.ndarray) -> Speed:
    """A line through the steps; through nothing but their mean where all had one size."""
    if len(set(tokens.tolist())) > 1:
        slope, fixed = np.polyfit(tokens, times, 1)
        slope, fixed = max(float(slope), 0.0), max(float(fixed), 0.0)
    else:
        slope, fixed = float(np.median(times) / tokens[0]), 0.0
    return Speed(fixed, slope, len(times) + 1, int(tokens.max()))


def _timed_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: FinetuneRecipe,
    shape: StepShape,
    rows: int,
) -> float:
    config = model.config
    batch = make_batch(rows, shape.length, config.num_labels, vocabulary_of(model))
    batch = {name: value.to(shape.device) for name, value in batch.items()}
    began = time.perf_counter()
    run_step(
        model,
        optimizer,
        [batch],
        device=shape.device,
        precision=shape.precision,
        max_grad_norm=recipe.training.max_grad_norm,
    )
    if shape.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _build(recipe: FinetuneRecipe, base: BaseModel, shape: StepShape) -> torch.nn.Module:
    shape_memory(recipe, shape.device)
    model = load_base(
        replace(base, random_weights=True),
        list(recipe.data.labels.values()),
        quantize_4bit=METHODS[recipe.adapter.method].quantised,
        compute_dtype=DTYPES[shape.precision],
        device=shape.device,
        dropout=recipe.model.dropout,
        attention=recipe_attention(recipe, shape.device, shape.precision),
    )
    adapted = adapt_model(model, recipe, shape.device)
    place_model(adapted, recipe, shape.precision, shape.device)
    if recipe.training.gradient_checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted.train()
