"""The recipe changed until it fits a memory: method, micro-batch, accumulation, checkpointing.

The effective batch stays what the recipe says. Memory against rows is convex (it is the largest
of sums that are each linear in rows), so a line between two estimates is never too low.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune.planning.memory import MemoryNeed
from finetune.recipes.text import FinetuneRecipe

GOOD_MICRO_BATCH = 4  # rows below which recomputing activations costs less than small products
CHEAPER = {"full": ("full", "lora", "qlora"), "qlora": ("qlora",)}
Estimate = Callable[[FinetuneRecipe], MemoryNeed]


@dataclass(frozen=True)
class Fit:
    """A recipe that fits, what it needs, and the keys that differ from the one given."""

    recipe: FinetuneRecipe
    need: MemoryNeed
    changes: dict[str, Any]


def fit_recipe(recipe: FinetuneRecipe, room_bytes: int, estimate: Estimate) -> Fit | None:
    """The recipe with the fewest sacrifices that needs at most ``room_bytes``; None if none does.

    The recipe's own method comes first, then cheaper ones; within a method, checkpointing only
    where the micro-batch would otherwise fall below GOOD_MICRO_BATCH.
    """
    asked = estimate(recipe)
    if asked.peak_bytes <= room_bytes:
        return Fit(recipe, asked, {})
    for method in CHEAPER.get(recipe.adapter.method, (recipe.adapter.method, "qlora")):
        least = change_recipe(recipe, method, 1, True, 1)
        if estimate(least).peak_bytes > room_bytes:
            continue
        fits = []
        for checkpointing in (False, True):
            if recipe.training.gradient_checkpointing and not checkpointing:
                continue
            found = _largest_batch(recipe, method, checkpointing, room_bytes, estimate)
            if found is not None:
                fits.append(found)
                if found.recipe.training.batch_size >= min(GOOD_MICRO_BATCH, _effective(recipe)):
                    return found
        if fits:
            return max(fits, key=lambda fit: fit.recipe.training.batch_size)
    return None


def change_recipe(
    recipe: FinetuneRecipe, method: str, rows: int, checkpointing: bool, eval_rows: int
) -> FinetuneRecipe:
    """The recipe at ``rows`` a micro-batch, the effective batch unchanged."""
    training = recipe.training.model_copy(
        update={
            "batch_size": rows,
            "gradient_accumulation_steps": _effective(recipe) // rows,
            "gradient_checkpointing": checkpointing,
            "eval_batch_size": eval_rows,
        }
    )
    adapter = recipe.adapter.model_copy(update={"method": method})
    return recipe.model_copy(update={"training": training, "adapter": adapter})


def differing_keys(old: FinetuneRecipe, new: FinetuneRecipe) -> dict[str, Any]:
    """``section.key`` → new value, of every key that differs."""
    return {
        f"{section}.{key}": value
        for section in ("adapter", "training")
        for key, value in getattr(new, section).model_dump(mode="json").items()
        if value != getattr(old, section).model_dump(mode="json")[key]
    }


def _largest_batch(
    recipe: FinetuneRecipe,
    method: str,
    checkpointing: bool,
    room_bytes: int,
    estimate: Estimate,
) -> Fit | None:
    """The largest divisor of the effective batch whose step fits, evaluation made to fit too."""

    def try_rows(rows: int) -> Fit | None:
        for eval_rows in (recipe.training.eval_batch_size, rows):
            changed = change_recipe(recipe, method, rows, checkpointing, eval_rows)
            need = needs[rows] = estimate(changed)
            if need.peak_bytes <= room_bytes:
                return Fit(changed, need, differing_keys(recipe, changed))
            if need.step_bytes > room_bytes:
                return None
        return None

    needs: dict[int, MemoryNeed] = {}
    effective = _effective(recipe)
    sizes = [n for n in range(recipe.training.batch_size, 0, -1) if effective % n == 0]
    largest = try_rows(sizes[0])
    if largest is not None or len(sizes) == 1:
        return largest
    smallest = try_rows(1)
    if smallest is None:
        return None
    slope = (needs[sizes[0]].step_bytes - needs[1].step_bytes) / (sizes[0] - 1)
    reachable = 1 + (room_bytes - needs[1].step_bytes) / slope
    for rows in sizes[1:-1]:
        found = try_rows(rows) if rows <= reachable else None
        if found is not None:
            return found
    return smallest


def _effective(recipe: FinetuneRecipe) -> int:
    return recipe.training.batch_size * recipe.training.gradient_accumulation_steps
