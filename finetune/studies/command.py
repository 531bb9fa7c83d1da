"""``kotune sweep``: the command, and how its recipe is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.core.console import tell
from finetune.core.errors import RecipeError

if TYPE_CHECKING:
    from finetune.recipes.sections import SweepSection

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key.sub=value, e.g. training.epochs=1"),
]


def sweep_command(
    recipe: str,
    overrides: Overrides = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(help='"adapter.rank=4,8,16 training.learning_rate=1e-4:1e-3:log"'),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="how many in all; 20 by default")] = None,
    output: Annotated[Path | None, typer.Option(help="the folder; default sweeps/NAME")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a sweep of the same name.")] = False,
) -> None:
    """Search a few keys of RECIPE by validation metric; the same command goes on."""
    options = {"trials": trials, "output": str(output) if output else None}
    content, section = load_sweep(recipe, overrides or (), parameters or (), options)
    from finetune.models.source import resolve_base
    from finetune.recipes.files import check_recipe
    from finetune.studies.sweep import run_sweep
    from finetune.tasks.registry import recipe_kind

    base = check_recipe(recipe_kind(content), content, recipe).base_model
    if base:
        resolve_base(**base)
    run_sweep(content, section, origin=recipe, overwrite=overwrite, report=tell)


def load_sweep(
    recipe: str,
    overrides: Sequence[str],
    parameters: Sequence[str],
    options: dict[str, Any],
) -> tuple[dict[str, Any], SweepSection]:
    """The recipe's content and its ``sweep`` section, options over it; raises RecipeError."""
    from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml
    from finetune.recipes.sections import SweepSection
    from finetune.studies.space import check_space, parse_options, parse_space
    from finetune.tasks.registry import recipe_kind

    content = apply_overrides(read_yaml(find_recipe(recipe)), overrides)
    told = content.pop("sweep", None) or {}
    check_recipe(recipe_kind(content), content, recipe)
    if not isinstance(told, dict):
        raise RecipeError("sweep is a section, not a value", received=told)
    told |= {key: value for key, value in options.items() if value is not None}
    if parameters:
        told["parameters"] = parse_options(parameters)
    section = check_recipe(SweepSection, told, f"{recipe}, sweep")
    check_space(content, parse_space(section.parameters), recipe)
    return content, section
