"""``kotune bench training SUITE`` and ``kotune bench plan SUITE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from finetune.core.errors import RecipeError
from finetune.recipes.files import dump_recipe, find_recipe, load_recipe


def run_training_suite(
    words: list[str], overrides: list[str], *, epochs: float | None, report: Callable[[str], None]
) -> Path:
    """Load the suite that stands behind ``training`` or ``plan``, run it; its report's path."""
    from bench.training.suite import PlanSuite, TrainingSuite

    kind, *names = words
    if len(names) != 1:
        raise RecipeError(
            f"kotune bench {kind} takes one suite",
            received=" ".join(names) or None,
            next_step=f"kotune bench {kind} bench/{kind}-roberta-large",
        )
    if epochs is not None and (kind == "plan" or epochs <= 0):
        raise RecipeError("--epochs is a number above 0, for `training`", received=epochs)
    beside = find_recipe(names[0]).parent
    if kind == "plan":
        from bench.training.plan_accuracy import run_plan_bench

        plan_suite = load_recipe(PlanSuite, names[0], overrides)
        typer.echo(dump_recipe(plan_suite))
        return run_plan_bench(plan_suite, beside, report=report)
    from bench.training.training import run_training_bench

    suite = load_recipe(TrainingSuite, names[0], overrides)
    typer.echo(dump_recipe(suite))
    return run_training_bench(suite, beside, epochs=epochs, report=report)
