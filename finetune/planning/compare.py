"""kotune plan RECIPE --compare: every method, precision and checkpointing side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from finetune.core.errors import RecipeError
from finetune.planning.data import planned_labels, read_lengths
from finetune.planning.memory import MemoryNeed, StepShape
from finetune.planning.planning import (
    find_base,
    memory_estimator,
    outside_bytes,
    part_notes,
    step_shape,
)
from finetune.planning.tables import MIB, mebibytes
from finetune.recipes.text import FinetuneRecipe

METHODS = ("full", "lora", "qlora")
PRECISIONS = ("fp32", "bf16")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Combination:
    """One way to train the recipe's model, and what it needs."""

    method: str
    precision: str
    gradient_checkpointing: bool
    need: MemoryNeed


@dataclass(frozen=True)
class Comparison:
    """All of them at the recipe's largest batch, in the order of the table."""

    recipe: FinetuneRecipe
    shape: StepShape
    outside_bytes: int
    combinations: list[Combination]
    notes: list[str]


def compare_plans(recipe: FinetuneRecipe, report: Report = print) -> Comparison:
    """Estimate full, LoRA and QLoRA, and the recipe's own method where it is another, in fp32 and
    bf16, with and without checkpointing; raises ModelError and DataError as a plan does.

    A precision that the device does not have is left out, and a note says so.
    """
    recipe, notes = planned_labels(recipe)
    base, note = find_base(recipe)
    notes += [note] if note else []
    lengths = read_lengths(recipe, base)
    notes += [lengths.note] if lengths.note else []
    notes += part_notes(recipe, base)
    estimate = memory_estimator(base, lengths, report)
    own = recipe.adapter.method
    found = []
    for precision in PRECISIONS:
        try:
            step_shape(_changed(recipe, own, precision, False), lengths)
        except RecipeError as fault:
            notes.append(f"{precision} is left out: {fault}".partition("\n")[0])
            continue
        for method in dict.fromkeys((*METHODS, own)):
            for checkpointing in (False, True):
                need = estimate(_changed(recipe, method, precision, checkpointing))
                found.append(Combination(method, precision, checkpointing, need))
    shape = step_shape(recipe, lengths)
    return Comparison(recipe, shape, outside_bytes(recipe), found, notes)


def comparison_table(comparison: Comparison) -> Table:
    """What is printed: one row a combination."""
    shape = comparison.shape
    beside = "a CUDA context" if shape.device == "cuda" else "Python and libraries"
    table = Table(
        title=f"{comparison.recipe.model.source} on {shape.device}, {shape.rows} × {shape.length} "
        f"tokens a step: planned MiB; beside it {mebibytes(comparison.outside_bytes)} for {beside}",
        title_justify="left",
    )
    for heading in ("method", "type", "checkpoints"):
        table.add_column(heading)
    for heading in ("trained", "weights", "optimizer", "activations", "peak"):
        table.add_column(heading, justify="right")
    table.add_column("reached in")
    for one in comparison.combinations:
        need = one.need
        table.add_row(
            one.method,
            one.precision,
            "yes" if one.gradient_checkpointing else "no",
            f"{need.trainable_parameters / need.parameters:.2%}",
            *(f"{count / MIB:,.0f}" for count in _columns(need)),
            need.phase,
        )
    return table


def _columns(need: MemoryNeed) -> tuple[int, int, int, int]:
    return need.weights_bytes, need.optimizer_bytes, need.activations_bytes, need.peak_bytes


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """The comparison, JSON-ready; schema ``kotune.plan-comparison/1``, sizes in bytes."""
    return {
        "schema": "kotune.plan-comparison/1",
        "recipe": comparison.recipe.name,
        "model": comparison.recipe.model.source,
        **asdict(comparison.shape),
        "outside_bytes": comparison.outside_bytes,
        "combinations": [
            {
                "method": one.method,
                "precision": one.precision,
                "gradient_checkpointing": one.gradient_checkpointing,
                **one.need.as_dict(),
            }
            for one in comparison.combinations
        ],
        "notes": comparison.notes,
    }


def _changed(
    recipe: FinetuneRecipe, method: str, precision: str, checkpointing: bool
) -> FinetuneRecipe:
    training = {"precision": precision, "gradient_checkpointing": checkpointing}
    return recipe.model_copy(
        update={
            "adapter": recipe.adapter.model_copy(update={"method": method}),
            "training": recipe.training.model_copy(update=training),
        }
    )
