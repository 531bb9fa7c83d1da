"""The best variant under conditions: the fastest that satisfies all of them, or what fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.report import text
from bench.report.figures import noise_floor, tie_on_speed
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.results.conditions import OPERATORS, WRITTEN, Condition, Field, parse_conditions
from bench.statistics.decisions import Estimate


@dataclass(frozen=True)
class Check:
    """A condition on one row; ``value`` as a reader wants it, or "not measured"."""

    condition: Condition
    holds: bool
    value: str


def check_row(row: Row, conditions: tuple[Condition, ...]) -> tuple[Check, ...]:
    """Every condition on one row; one whose figure was not measured does not hold."""
    return tuple(_check(row, condition) for condition in conditions)


def _check(row: Row, condition: Condition) -> Check:
    value = figure_of(row, condition.field)
    if value is None:
        return Check(condition, False, "not measured")
    holds = OPERATORS[condition.operator](value, condition.limit)
    unit, factor = next(iter(condition.field.units.items()))
    shown = text.significant(value / factor, 3)
    return Check(condition, holds, f"{shown} {WRITTEN.get(unit, unit)}")


def figure_of(row: Row, field: Field) -> float | None:
    """The number behind a condition; None where it was not measured."""
    derived = DERIVED.get(field.figure)
    found = derived(row) if derived else getattr(row, field.figure)
    return found if found is None or field.part is None else getattr(found, field.part)


@dataclass(frozen=True)
class Selection:
    """``where`` as it was asked, each contender with its checks, and the one chosen, if any."""

    where: str
    chosen: str | None
    headline: str
    checks: tuple[tuple[Row, tuple[Check, ...]], ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each variant that does not satisfy the conditions: which fail, and by what."""
        return tuple(
            _failure(row, checks) for row, checks in self.checks if not _satisfies(row, checks)
        )


def select_variant(summary: Summary, where: str) -> Selection:
    """Check every variant that ran, by speed; raises RecipeError where the conditions are wrong.

    Runs of one recipe with several seeds are one variant. One whose export failed its checks
    satisfies nothing.
    """
    conditions = parse_conditions(where)
    summary = summary.over_seeds
    ordered = sorted((row for row in summary.shown if row.group is None), key=_by_speed)
    checks = tuple((row, check_row(row, conditions)) for row in ordered)
    fit = [row for row, found in checks if _satisfies(row, found)]
    chosen = fit[0] if fit else None
    return Selection(where, chosen.name if chosen else None, _headline(fit, summary), checks)


def _by_speed(row: Row) -> tuple[float, float]:
    """Fast first; untimed rows last, the accurate ones first among them."""
    kept = row.accuracy.value if row.accuracy else -row.wer.value if row.wer else 0.0
    return (row.latency.p50_ms if row.latency else float("inf"), -kept)


def _headline(fit: list[Row], summary: Summary) -> str:
    if not fit:
        return "No variant satisfies all conditions."
    best = fit[0]
    if best.latency is None:
        return f"`{best.name}` satisfies all conditions; nothing was timed."
    told = f"`{best.name}` is the fastest variant that satisfies all conditions"
    audio = f" for {summary.length} s of audio" if summary.length else ""
    told += f" (p50 {text.milliseconds(best.latency.p50_ms)} ms{audio}"
    if best.accuracy:
        told += f", accuracy {text.percent(best.accuracy.value)} %"
    if best.wer:
        told += f", word error rate {text.percent(best.wer.value)} %"
    floor = noise_floor(summary.noise_pair.speedup if summary.noise_pair else None)
    tied = [f"`{row.name}`" for row in fit[1:] if tie_on_speed(row, best, floor)]
    also = f"; {text.listed(tied)} {'ties' if len(tied) == 1 else 'tie'} with it on speed"
    return f"{told}){also if tied else ''}."


def _satisfies(row: Row, checks: tuple[Check, ...]) -> bool:
    return not row.export_failed and all(check.holds for check in checks)


def _failure(row: Row, checks: tuple[Check, ...]) -> str:
    failing = ["the checks of its export"] if row.export_failed else []
    failing += [f"{one.condition.words} ({one.value})" for one in checks if not one.holds]
    return f"`{row.name}` fails {text.listed(failing)}."


def _accuracy_drop(row: Row) -> Estimate | None:
    """The baseline's accuracy minus this row's; the baseline itself loses nothing."""
    if row.is_baseline:
        return Estimate(0.0, 0.0, 0.0) if row.accuracy else None
    if row.comparison is None:
        return None
    found = row.comparison.difference
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Estimate(-found.value, low, high)


def _wer_increase(row: Row) -> Estimate | None:
    """This row's word error rate minus the baseline's; the baseline itself adds nothing."""
    if row.is_baseline:
        return Estimate(0.0, 0.0, 0.0) if row.wer else None
    return row.errors.difference if row.errors else None


def _speedup(row: Row) -> Estimate | None:
    return Estimate(1.0, 1.0, 1.0) if row.is_baseline and row.latency else row.speedup


DERIVED: dict[str, Callable[[Row], Any]] = {
    "accuracy_drop": _accuracy_drop,
    "wer_increase": _wer_increase,
    "speedup": _speedup,
    "vram_bytes": lambda row: row.peak_vram_bytes or row.device_bytes,
}
