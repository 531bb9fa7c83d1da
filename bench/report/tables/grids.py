"""The small tables: training, the ladder of each artifact, the server scenario, several seeds.

A column without a figure is absent.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.report import text
from bench.report.rows import Row, mark_failed
from bench.report.summary import Summary
from bench.results.records import Results, ServerResult, Variant
from bench.statistics.decisions import Estimate

Reader = Callable[[Any], str | None]


@dataclass(frozen=True)
class Grid:
    """A table of words: the first column is the row's name; ``failed`` marks rows.

    ``remarks`` say why rows failed.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failed: tuple[bool, ...]
    remarks: tuple[str, ...]


def training_grid(results: Results) -> Grid | None:
    """One row per run: method, precision, steps, time, peak memory; None without any."""
    runs = results.training
    columns: list[tuple[str, Reader]] = [
        ("method", _field("method", str)),
        ("device", _field("device", str)),
        ("precision", _field("precision", str)),
        ("threads", _field("threads", _count)),
        ("steps", _field("steps", _count)),
        ("time", _field("training_time_s", text.duration)),
        ("median step, s", _field("step_times_s", lambda times: text.significant(median(times)))),
        ("peak memory", _field("peak_training_memory_bytes", text.bytes_with_unit)),
        ("peak VRAM", _field("peak_training_vram_bytes", text.bytes_with_unit)),
    ]
    return _grid("Run", list(runs), list(runs.values()), columns) if runs else None


def ladder_grids(results: Results) -> list[Grid]:
    """One table per artifact: each stage against the one before it."""
    columns: list[tuple[str, Reader]] = [
        ("max Δ", lambda step: _maybe(step.max_logit_difference, text.scientific)),
        ("mean Δ", lambda step: _maybe(step.mean_logit_difference, text.scientific)),
        ("flipped", lambda step: _maybe(step.flipped, _count)),
        ("changed", lambda step: _maybe(step.changed, _count)),
        ("over margin", lambda step: _maybe(step.flipped_over_margin, _count)),
        ("rows", lambda step: _maybe(step.rows, _count)),
        ("accuracy", lambda step: _maybe(step.accuracy, text.percent)),
        ("F1 macro", lambda step: _maybe(step.f1_macro, text.percent)),
        ("WER", lambda step: _maybe(step.wer, text.percent)),
        ("check", lambda step: "passed" if step.passed else "failed"),
    ]
    return [
        _grid(name, [step.step for step in steps], steps, columns)
        for name, steps in results.ladders.items()
        if steps
    ]


def _grid(
    name: str, names: Sequence[str], records: Sequence[Any], columns: list[tuple[str, Reader]]
) -> Grid:
    cells = [[read(record) for _, read in columns] for record in records]
    present = [i for i in range(len(columns)) if any(row[i] is not None for row in cells)]
    return Grid(
        name=name,
        headings=tuple(columns[i][0] for i in present),
        rows=tuple(
            (label, *(row[i] or "–" for i in present))
            for label, row in zip(names, cells, strict=True)
        ),
        failed=tuple(not getattr(record, "passed", True) for record in records),
        remarks=tuple(
            f"{label}: {record.failure}"
            for label, record in zip(names, records, strict=True)
            if getattr(record, "failure", None)
        ),
    )


def _field(key: str, written: Callable[[Any], str]) -> Reader:
    """Reads a key of a mapping; nothing, an empty list and null are no figure."""

    def read(record: Mapping[str, Any]) -> str | None:
        value = record.get(key)
        return None if value is None or value == [] else written(value)

    return read


def _count(value: int) -> str:
    return f"{value:,}"


def _maybe(value: float | None, written: Callable[[Any], str]) -> str | None:
    return None if value is None else written(value)


def server_grid(results: Results) -> Grid | None:
    """One row per variant: the highest rate that held the p99 bound, without and with batching."""
    measured = [one for one in results.variants if one.server and one.status == "ok"]
    titles = {one.name: mark_failed(one.name, one.export_checks == "failed") for one in measured}
    if not measured:
        return None
    kinds = sorted({result.max_batch for one in measured for result in one.server})
    bound = measured[0].server[0].bound_ms
    rows = [
        (titles[one.name], *(_rate(one, kind) for kind in kinds), _gain(one, kinds))
        for one in measured
    ]
    headings = [
        "one at a time, queries/s" if kind == 1 else f"batches up to {kind}, queries/s"
        for kind in kinds
    ]
    name = f"Highest rate with p99 within {bound:g} ms"
    return Grid(name, (*headings, "gain"), tuple(rows), (False,) * len(rows), ())


def seeds_grid(summary: Summary) -> Grid | None:
    """One row per recipe that was trained with several seeds; None where none was."""
    found = [row for row in summary.merged_rows if row.seed_accuracies or row.seed_wers]
    if not found:
        return None
    rows = tuple((row.name, *_seed_cells(row)) for row in found)
    headings = (
        "seeds",
        f"mean {'word error rate' if found[0].seed_wers else 'accuracy'}, %",
        "lowest and highest",
        "standard deviation",
        "Δ, points",
        "test over seeds",
    )
    return Grid("Several seeds", headings, rows, (False,) * len(rows), _left_out(summary))


def _left_out(summary: Summary) -> tuple[str, ...]:
    """Runs that no mean holds, although another seed of their recipe is in one."""
    variants = {one.name: one for one in summary.results.variants}
    kinds = {_kind_of(variants[row.name]) for row in summary.rows if _is_merged(row, summary)}
    why = {True: "its export failed its checks", False: "it could not be measured"}
    return tuple(
        f"{row.name} is in no mean: {why[row.export_failed]}"
        for row in summary.rows
        if (row.export_failed or row.failed) and _kind_of(variants[row.name]) in kinds
    )


def _is_merged(row: Row, summary: Summary) -> bool:
    return all(one.name != row.name or one.seeds for one in summary.merged_rows)


def _kind_of(one: Variant) -> tuple[str | None, str, str]:
    return one.recipe, one.runtime, one.precision


def _seed_cells(row: Row) -> tuple[str, ...]:
    shares = list((row.seed_accuracies or row.seed_wers).values())
    lowest, highest = (text.percent(end) for end in (min(shares), max(shares)))
    cells = (
        f"{len(shares)}",
        _with_ends(row.accuracy or row.wer, text.percent),
        text.span(lowest, highest),
        text.points(statistics.stdev(shares)).lstrip("+"),
    )
    found = row.comparison or row.errors
    if found is None or found.test is None:
        return (*cells, "–", "–")
    test = f"{found.test}, {text.p_value(found.p_adjusted)}, {WORDS[found.finding]}"
    return (*cells, _with_ends(found.difference, text.points), test)


def _with_ends(found: Estimate, written: Callable[[float], str]) -> str:
    """A figure with its interval; values that are all alike have none."""
    if found.low is None or found.high is None:
        return written(found.value)
    return f"{written(found.value)} ({text.span(written(found.low), written(found.high))})"


def _rate(variant: Variant, kind: int) -> str:
    result = _of_kind(variant, kind)
    if result is None:
        return "–"
    if not result.rate_per_s:
        return "none holds"
    return f"{text.significant(result.rate_per_s)} (p99 {text.milliseconds(result.p99_ms or 0)} ms)"


def _gain(variant: Variant, kinds: list[int]) -> str:
    """What dynamic batching multiplies the rate by."""
    rates = [result.rate_per_s for kind in kinds if (result := _of_kind(variant, kind))]
    return f"× {text.times(rates[-1] / rates[0])}" if len(rates) > 1 and rates[0] else "–"


def _of_kind(variant: Variant, kind: int) -> ServerResult | None:
    return next((one for one in variant.server if one.max_batch == kind), None)


WORDS = {"better": "better", "worse": "worse", "tie": "no difference shown"}
