"""Small tables of what not every benchmark measures: the server scenario, several seeds."""

from __future__ import annotations

from collections import defaultdict
from itertools import takewhile

from bench.report import text
from bench.report.summary import Row, Summary
from bench.report.tables.grids import Grid
from bench.results.records import Results, ServerResult, Variant
from bench.statistics.seeds import SeedSummary, summarise_seeds


def server_grid(results: Results) -> Grid | None:
    """One row per variant: the highest rate that held the p99 bound, without and with batching."""
    measured = [one for one in results.variants if one.server and one.status == "ok"]
    if not measured:
        return None
    kinds = sorted({result.max_batch for one in measured for result in one.server})
    bound = measured[0].server[0].bound_ms
    rows = [
        (one.name, *(_rate(one, kind) for kind in kinds), _gain(one, kinds)) for one in measured
    ]
    headings = [
        "one at a time, queries/s" if kind == 1 else f"batches up to {kind}, queries/s"
        for kind in kinds
    ]
    name = f"Highest rate with p99 within {bound:g} ms"
    return Grid(name, (*headings, "gain"), tuple(rows), (False,) * len(rows), ())


def seeds_grid(summary: Summary) -> Grid | None:
    """One row per recipe that was trained with several seeds; None where none was."""
    found = seed_summaries(summary)
    if not found:
        return None
    rows = tuple((one.name, *_seed_cells(one)) for one in found)
    headings = ("seeds", "mean accuracy, %", "standard deviation", "Δ, points", "test over seeds")
    return Grid("Several seeds", headings, rows, (False,) * len(rows), ())


def seed_summaries(summary: Summary) -> list[SeedSummary]:
    """Accuracies by recipe, runtime and precision, over the seeds of their runs."""
    variants = {one.name: one for one in summary.results.variants}
    groups: dict[tuple[str, str, str], dict[int, Row]] = defaultdict(dict)
    for row in summary.contenders:
        variant = variants[row.name]
        if variant.recipe is not None and variant.seed is not None and row.accuracy:
            groups[variant.recipe, row.runtime, row.precision][variant.seed] = row
    several = {key: by for key, by in groups.items() if len(by) > 1}
    names = {key: f"{_title(key, several)}-{key[1]}-{key[2]}" for key in several}
    baseline = next(
        (names[key] for key, by in several.items() if any(one.is_baseline for one in by.values())),
        None,
    )
    accuracies = {
        names[key]: {seed: row.accuracy.value for seed, row in by.items() if row.accuracy}
        for key, by in several.items()
    }
    return summarise_seeds(accuracies, baseline)


def _title(key: tuple[str, str, str], groups: dict[tuple[str, str, str], dict[int, Row]]) -> str:
    """The method where one recipe has it, else what the runs' names have in common."""
    rows = list(groups[key].values())
    methods = {recipe: next(iter(by.values())).method for (recipe, *_), by in groups.items()}
    if list(methods.values()).count(rows[0].method) == 1:
        return rows[0].method
    names = [row.run or row.name for row in rows]
    shared = "".join(letters[0] for letters in takewhile(_all_same, zip(*names, strict=False)))
    return shared.rstrip("-_.") or key[0][:8]


def _all_same(letters: tuple[str, ...]) -> bool:
    return len(set(letters)) == 1


def _seed_cells(one: SeedSummary) -> tuple[str, ...]:
    mean = one.mean
    ends = text.span(text.percent(mean.low or 0), text.percent(mean.high or 0))
    cells = (
        f"{len(one.accuracies)}",
        f"{text.percent(mean.value)} ({ends})",
        text.points(one.spread).lstrip("+"),
    )
    if one.comparison is None:
        return (*cells, "–", "–")
    found = one.comparison
    low, high = (text.points(end or 0) for end in (found.difference.low, found.difference.high))
    told = f"{text.points(found.difference.value)} ({text.span(low, high)})"
    return (*cells, told, f"{found.test}, {text.p_value(found.p_adjusted)}, {WORDS[found.finding]}")


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
