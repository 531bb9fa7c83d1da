"""The best variant under conditions: the fastest that satisfies all of them, or what fails."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report import text
from bench.report.conditions import Check, check_row, parse_conditions
from bench.report.figures import noise_floor, tie_on_speed
from bench.report.row import Row
from bench.report.summary import Summary


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
    ordered = sorted(summary.shown, key=_by_speed)
    checks = tuple((row, check_row(row, conditions)) for row in ordered)
    fit = [row for row, found in checks if _satisfies(row, found)]
    chosen = fit[0] if fit else None
    return Selection(where, chosen.name if chosen else None, _headline(fit, summary), checks)


def _by_speed(row: Row) -> tuple[float, float]:
    """Fast first; untimed rows last, the accurate ones first among them."""
    accuracy = row.accuracy.value if row.accuracy else 0.0
    return (row.latency.p50_ms if row.latency else float("inf"), -accuracy)


def _headline(fit: list[Row], summary: Summary) -> str:
    if not fit:
        return "No variant satisfies all conditions."
    best = fit[0]
    if best.latency is None:
        return f"`{best.name}` satisfies all conditions; nothing was timed."
    told = f"`{best.name}` is the fastest variant that satisfies all conditions"
    told += f" (p50 {text.milliseconds(best.latency.p50_ms)} ms"
    if best.accuracy:
        told += f", accuracy {text.percent(best.accuracy.value)} %"
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
