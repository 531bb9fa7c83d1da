"""The plan of a recipe before it runs: memory, steps, time, and what would fit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from finetune.checks.before import compare_with_model
from finetune.core.errors import KotuneError, ModelError, RecipeError
from finetune.hardware.gpu import free_vram_bytes
from finetune.hardware.precision import choose_device, choose_precision
from finetune.models.loading import first_line, load_base_tokenizer
from finetune.models.source import KLUE, BaseModel, resolve_base
from finetune.planning.data import (
    Lengths,
    count_steps,
    padded_tokens,
    planned_labels,
    read_lengths,
)
from finetune.planning.fit import Fit, fit_recipe
from finetune.planning.memory import MemoryNeed, StepShape, estimate_memory
from finetune.planning.probe import Speed, probe_speed
from finetune.recipes.text import FinetuneRecipe

Report = Callable[[str], None]
CUDA_CONTEXT_BYTES = 512 << 20  # outside PyTorch's allocator; differs by GPU and driver
# What the allocator has reserved and no tensor uses, once its segments grow page by page: up to a
# page of its pools for small and for large blocks (CUDACachingAllocator.cpp, expandable_segments)
UNUSED_PAGES_BYTES = (2 << 20) + (20 << 20)
ROOM_FOR_PROBE = 0.8  # of free memory


@dataclass(frozen=True)
class Plan:
    """Everything a plan says. ``room_bytes`` is what is left of the memory for the training."""

    recipe: FinetuneRecipe
    shape: StepShape
    lengths: Lengths
    need: MemoryNeed
    outside_bytes: int
    steps: int | None
    steps_per_epoch: int | None
    tokens_per_batch: float
    padding_share: float
    speed: Speed | None
    memory_bytes: int | None
    fit: Fit | None
    notes: list[str]

    @property
    def training_s(self) -> float | None:
        """Seconds of all steps, evaluations not counted."""
        if self.speed is None or self.steps is None:
            return None
        accumulation = self.recipe.training.gradient_accumulation_steps
        return self.steps * accumulation * self.speed.micro_batch_s(self.tokens_per_batch)

    @property
    def fits(self) -> bool | None:
        """Whether the recipe as it is fits the memory; None where none was given."""
        return None if self.memory_bytes is None else self.fit is not None and not self.fit.changes


def make_plan(
    recipe: FinetuneRecipe,
    *,
    memory_bytes: int | None = None,
    probe: bool = True,
    report: Report = print,
) -> Plan:
    """Plan the recipe; loads no weights but the probe's random ones. Raises ModelError."""
    recipe, notes = planned_labels(recipe)
    base, note = find_base(recipe)
    notes += [note] if note else []
    lengths = read_lengths(recipe, base)
    notes += [lengths.note] if lengths.note else []
    notes += part_notes(recipe, base)
    outside = outside_bytes(recipe)
    estimate = memory_estimator(base, lengths, report)
    need = estimate(recipe)
    fit = None
    if memory_bytes is not None:
        fit = fit_recipe(recipe, memory_bytes - outside, estimate)
    shape = step_shape(recipe, lengths)
    steps, per_epoch = count_steps(recipe, lengths.rows)
    tokens, padding = padded_tokens(recipe, lengths)
    speed = _probe(recipe, base, shape, need, notes, report) if probe else None
    return Plan(
        recipe=recipe,
        shape=shape,
        lengths=lengths,
        need=need,
        outside_bytes=outside,
        steps=steps,
        steps_per_epoch=per_epoch,
        tokens_per_batch=tokens,
        padding_share=padding,
        speed=speed,
        memory_bytes=memory_bytes,
        fit=fit,
        notes=notes,
    )


def part_notes(recipe: FinetuneRecipe, base: BaseModel) -> list[str]:
    """What a training of the recipe would warn of; raises ModelError where it would refuse."""
    try:
        tokenizer = load_base_tokenizer(base)
    except ModelError:  # told beside the lengths
        return []
    return [one.message for one in compare_with_model(recipe, base, tokenizer, refuse=False)]


def plan_memory(recipe: FinetuneRecipe) -> MemoryNeed:
    """What the recipe needs at its largest batch, and nothing else of a plan."""
    recipe, _ = planned_labels(recipe)
    base, _ = find_base(recipe)
    return estimate_memory(recipe, base, step_shape(recipe, read_lengths(recipe, base)))


def find_base(recipe: FinetuneRecipe) -> tuple[BaseModel, str | None]:
    """The base model and, where only its architecture is at hand, a note that says so."""
    model = recipe.model
    try:
        return resolve_base(
            model.source, model.revision, random_weights=model.random_weights, seed=recipe.seed
        ), None
    except ModelError:
        if model.source not in KLUE:
            raise
    base = resolve_base(model.source, model.revision, random_weights=True, seed=recipe.seed)
    return base, f"{model.source} is not at hand: its exact published architecture is planned"


def step_shape(recipe: FinetuneRecipe, lengths: Lengths) -> StepShape:
    """The largest batch of the recipe; CUDA pads to multiples of 8."""
    training = recipe.training
    device = _device(recipe)
    length = recipe.model.max_length if training.padding == "max_length" else lengths.longest
    if device == "cuda" and training.padding == "dynamic" and recipe.model.max_length % 8 == 0:
        length = -(-length // 8) * 8
    return StepShape(
        rows=training.batch_size,
        length=length,
        eval_rows=training.eval_batch_size,
        device=device,
        precision=_precision(training.precision, device),
    )


def outside_bytes(recipe: FinetuneRecipe) -> int:
    """What stands in memory beside the training: a CUDA context, or Python and the libraries."""
    if _device(recipe) == "cuda":
        return CUDA_CONTEXT_BYTES + UNUSED_PAGES_BYTES
    return psutil.Process().memory_info().rss


def free_bytes(recipe: FinetuneRecipe) -> int:
    """What the device has left now, beside it what the plan counts as standing beside a training.

    Asking a GPU makes a CUDA context here, which a training makes for itself. Raises RecipeError.
    """
    if _device(recipe) == "cpu":
        return psutil.virtual_memory().available + outside_bytes(recipe)
    import torch

    if not torch.cuda.is_available():
        raise RecipeError(
            "--memory free, and PyTorch sees no GPU here",
            allowed="the GPU's memory in GiB",
            next_step="--memory 6",
        )
    return free_vram_bytes() + CUDA_CONTEXT_BYTES


def _device(recipe: FinetuneRecipe) -> str:
    """Where it would run; CUDA may be planned where there is none."""
    return "cuda" if recipe.training.device == "cuda" else choose_device(recipe.training.device)


def _precision(asked: str, device: str) -> str:
    """As it would be; ``auto`` on an absent GPU is bf16, which every one since 2020 has."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "bf16" if asked == "auto" else asked
    return choose_precision(asked, device)


def memory_estimator(
    base: BaseModel, lengths: Lengths, report: Report
) -> Callable[[FinetuneRecipe], MemoryNeed]:
    """``estimate_memory`` that remembers, and says what it is at."""

    @functools.cache
    def remembered(content: str) -> MemoryNeed:
        recipe = FinetuneRecipe.model_validate_json(content)
        training = recipe.training
        report(
            f"  step of {recipe.adapter.method}, micro-batch {training.batch_size}"
            + (", checkpointing" if training.gradient_checkpointing else "")
        )
        return estimate_memory(recipe, base, step_shape(recipe, lengths))

    return lambda recipe: remembered(recipe.model_dump_json())


def _probe(
    recipe: FinetuneRecipe,
    base: BaseModel,
    shape: StepShape,
    need: MemoryNeed,
    notes: list[str],
    report: Report,
) -> Speed | None:
    """The speed of real steps, or a note why there is none."""
    import torch

    if shape.device == "cuda" and not torch.cuda.is_available():
        notes.append("no time estimate: PyTorch sees no GPU here")
        return None
    free = psutil.virtual_memory().available
    if shape.device == "cpu" and need.peak_bytes > ROOM_FOR_PROBE * free:
        notes.append("no time estimate: a real step would not fit this machine's free memory")
        return None
    report("  ten seconds of real steps")
    try:
        return probe_speed(recipe, base, shape)
    except (KotuneError, MemoryError):
        raise
    except Exception as fault:  # whatever a model's forward raises: the rest of the plan holds
        notes.append(f"no time estimate: a real step fails ({first_line(fault)})")
        return None
