"""kotune plan RECIPE: what a run will need, before it runs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from finetune.core.console import console, errors, say
from finetune.core.errors import GateError, RecipeError

if TYPE_CHECKING:
    from finetune.recipes.text import FinetuneRecipe

FREE = "free"  # of --memory: as much as the device has left
UNITS = {"b": 1} | {
    f"{letter}{middle}b": (1024 if middle else 1000) ** power
    for power, letter in enumerate("kmgt", start=1)
    for middle in ("", "i")
}
UNITS |= {"g": UNITS["gib"], "m": UNITS["mib"]}  # as nvidia-smi and free write them


def plan_recipe(
    recipe: str,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, e.g. training.batch_size=8")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="what there is, e.g. 6 (GiB), 6GB or 800MiB, or free: what is free on the device "
            "now; change the recipe to fit"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; a GPU may be planned without one")
    ] = None,
    probe: Annotated[bool, typer.Option(help="take ten seconds of real steps for the time")] = True,
    compare: Annotated[
        bool, typer.Option("--compare", help="every method, precision and checkpointing in a table")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Tell the memory, the steps and the time of RECIPE; loads no weights and trains nothing.

    Exit code 1 where nothing fits --memory.
    """
    from finetune.recipes.files import load_recipe
    from finetune.recipes.text import FinetuneRecipe

    measure = memory is not None and memory.strip().lower() == FREE
    room = None if memory is None or measure else parse_bytes(memory)
    words = [*(overrides or []), *([f"training.device={device}"] if device else [])]
    resolved = load_recipe(FinetuneRecipe, recipe, words)
    if compare:
        if memory is not None:
            raise RecipeError("--compare shows all, --memory picks one", next_step="one of the two")
        _compare(resolved, as_json)
        return
    from finetune.planning.planning import free_bytes, make_plan
    from finetune.planning.tables import plan_record, plan_tables

    room = free_bytes(resolved) if measure else room
    plan = make_plan(resolved, memory_bytes=room, probe=probe, report=_tell)
    if as_json:
        typer.echo(json.dumps(plan_record(plan), ensure_ascii=False, indent=2))
    else:
        for part in plan_tables(plan):
            say(part) if isinstance(part, str) else console.print(part)
    if room is not None and plan.fit is None:
        raise GateError(
            "nothing fits the memory", received=memory, next_step="a smaller model.source, or more"
        )


def _compare(recipe: FinetuneRecipe, as_json: bool) -> None:
    from finetune.planning.compare import compare_plans, comparison_record, comparison_table

    comparison = compare_plans(recipe, _tell)
    if as_json:
        typer.echo(json.dumps(comparison_record(comparison), ensure_ascii=False, indent=2))
        return
    console.print(comparison_table(comparison))
    for note in comparison.notes:
        say(f"note: {note}")


def _tell(line: str) -> None:
    errors.print(escape(line), style="dim")


def parse_bytes(text: str) -> int:
    """``6GB`` → 6,000,000,000; ``8GiB`` and ``8`` → 8 × 2^30; raises RecipeError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)\s*", text)
    unit = found and UNITS.get(found[2].lower() or "gib")
    if not found or not unit or float(found[1]) == 0:
        raise RecipeError(
            "--memory is what there is, in GiB where no unit is given",
            received=text,
            allowed="6, 6GB, 8GiB, 800MiB, free",
        )
    return int(float(found[1]) * unit)
