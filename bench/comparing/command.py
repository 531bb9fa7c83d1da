"""kotune compare OLD NEW: two results side by side, as a table or JSON, and a gate for CI."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.core.console import tell
from finetune.core.errors import GateError, RecipeError

if TYPE_CHECKING:
    from bench.comparing.compare import Change, Comparison, VariantChange

SCHEMA = "kotune.comparison/1"
MARKS = {"better": "▲", "worse": "▼", "tie": "≈"}


def compare_command(
    old: Annotated[Path, typer.Argument(help="a report folder, or its results.json")],
    new: Annotated[Path, typer.Argument(help="the one that is compared with it")],
    gate: Annotated[bool, typer.Option("--gate", help="a regression ends with exit 1")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="slowdown that is allowed, in percent")
    ] = 0.0,
) -> None:
    """Set two results side by side: quality on the same rows, latency, throughput, size."""
    from bench.comparing.compare import compare_results
    from bench.results.reading import read_results

    if not 0 <= tolerance < 100:
        raise RecipeError("--tolerance is a percentage", received=tolerance, allowed="0 to 100")
    found = compare_results(read_results(old), read_results(new), tolerance=tolerance / 100)
    if as_json:
        print(json.dumps(as_record(found), ensure_ascii=False, indent=2))
    else:
        for line in comparison_lines(found):
            tell(line)
    if gate and found.regressions:
        raise GateError(
            "the new results are worse",
            received="; ".join(found.regressions),
            next_step="--tolerance PERCENT where a slowdown may be accepted",
        )


def as_record(found: Comparison) -> dict[str, Any]:
    """The comparison for machines."""
    content = {"schema": SCHEMA, **dataclasses.asdict(found)}
    return {**content, "regressions": list(found.regressions)}


def comparison_lines(found: Comparison) -> Iterator[str]:
    """A Markdown table with what must be known to read it."""
    yield f"{found.old} → {found.new}"
    yield ""
    yield "| variant | figure | old | new | change | 95 % interval | |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for one in found.variants:
        yield from _rows(one)
    yield ""
    yield (
        "▲ better, ▼ worse, ≈ no difference shown (within the interval, the noise floor of "
        f"{100 * found.noise_floor:.1f} % or the tolerance of {100 * found.tolerance:g} %)"
    )
    yield from found.cautions
    yield (f"worse: {'; '.join(found.regressions)}" if found.regressions else "nothing is worse")


def _rows(one: VariantChange) -> Iterator[str]:
    if one.status != "compared":
        yield f"| {one.name} | {one.status} | | | | | |"
    for change in one.changes:
        cells = [one.name, change.figure, *_written(change), MARKS[change.finding]]
        yield f"| {' | '.join(cells)} |"


def _written(change: Change) -> list[str]:
    """Old, new, change and interval as a reader wants them."""
    from bench.report import text

    low, high = change.change.low, change.change.high
    if change.figure in ("accuracy", "f1_macro", "word error rate"):
        values = [f"{text.percent(value)} %" for value in (change.old, change.new)]
        ends = text.span(text.points(low), text.points(high))
        return [*values, f"{text.points(change.change.value)} pt", ends]
    written = {
        "p50": lambda value: f"{text.milliseconds(value)} ms",
        "p95": lambda value: f"{text.milliseconds(value)} ms",
        "throughput": lambda value: f"{text.significant(value)} rows/s",
        "size": text.bytes_with_unit,
    }[change.figure.partition(" at ")[0]]
    ends = "" if low is None or high is None else text.span(_ratio(low), _ratio(high))
    return [written(change.old), written(change.new), f"× {_ratio(change.change.value)}", ends]


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
