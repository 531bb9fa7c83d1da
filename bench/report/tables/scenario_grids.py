"""Small tables of what not every benchmark measures: the server scenario, several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.report import text
from bench.report.row import Row, mark_failed
from bench.report.summary import Summary
from bench.report.tables.grids import Grid
from bench.results.records import Results, ServerResult, Variant
from bench.statistics.decisions import Estimate


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
    found = [row for row in summary.merged_rows if row.seed_accuracies]
    if not found:
        return None
    rows = tuple((row.name, *_seed_cells(row)) for row in found)
    headings = (
        "seeds",
        "mean accuracy, %",
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
    shares = list(row.seed_accuracies.values())
    lowest, highest = (text.percent(end) for end in (min(shares), max(shares)))
    cells = (
        f"{len(shares)}",
        _with_ends(row.accuracy, text.percent),
        text.span(lowest, highest),
        text.points(statistics.stdev(shares)).lstrip("+"),
    )
    if row.comparison is None:
        return (*cells, "–", "–")
    found = row.comparison
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
