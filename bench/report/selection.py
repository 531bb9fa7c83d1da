"""The best variant under conditions: the fastest that satisfies all of them, or what fails.

``accuracy_drop<=0.2pt, p95_ms<=20, size_mb<=150``: read without eval, checked row by row.

    conditions = condition {"," condition}
    condition  = field operator number [unit]
    operator   = "<=" | "<" | ">=" | ">"

A share (accuracy, F1, error rates and their differences) needs ``%`` or ``pt``, since 0.2 could be
either. A field with an interval has its ends too: ``accuracy_drop_high`` is the largest loss that
the rows cannot rule out, ``accuracy_drop`` the one observed. Latency and speed of speech are those
at the length of audio that the report shows.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from bench.report import text
from bench.report.figures import noise_floor, tie_on_speed
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import Estimate
from finetune.core.errors import RecipeError

Number = Callable[[Row], float | None]
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
SHARE = {"%": 0.01, "pt": 0.01}
POINTS = {"pt": 0.01, "%": 0.01}
MILLISECONDS = {"ms": 1.0, "s": 1000.0}
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
MEGABYTES = {"mb": 1e6, "kb": 1e3, "gb": 1e9}
RATIO = {"x": 1.0}
PER_SECOND = {"rows/s": 1.0}
WRITTEN = {"mb": "MB", "x": "×", "mj": "mJ"}
JOULES = {"mj": 1e-3, "j": 1.0}
CONDITION = re.compile(
    r"(?P<field>[A-Za-z]\w*)\s*(?P<operator><=|>=|<|>)\s*"
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[^\s\d]\S*)?"
)
EXAMPLE = '--where "accuracy_drop<=0.2pt, p95_ms<=20, size_mb<=150"'


@dataclass(frozen=True)
class Field:
    """A figure that can be asked for; the first of its ``units`` is the one without a unit."""

    name: str
    units: dict[str, float]
    figure: Number


@dataclass(frozen=True)
class Condition:
    """``field`` compared with ``limit`` in the figure's own unit; ``words`` as it was written."""

    field: Field
    operator: str
    limit: float
    words: str


@dataclass(frozen=True)
class Check:
    """A condition on one row; ``value`` as a reader wants it, or "not measured"."""

    condition: Condition
    holds: bool
    value: str


def parse_conditions(words: str) -> tuple[Condition, ...]:
    """The conditions of a ``--where``; raises RecipeError, which names every fault of it."""
    parts = [part.strip() for part in words.split(",")]
    faults: list[str] = []
    found = [condition for part in parts if (condition := _parse(part, faults))]
    if faults:
        raise RecipeError(
            f"the conditions cannot be read: {'; '.join(faults)}",
            received=words,
            allowed=f"FIELD <=, <, >= or > NUMBER[UNIT], separated by commas; fields: "
            f"{', '.join(name for name in FIELDS if not name.endswith(('_low', '_high')))} "
            "(those with an interval also end in _low and _high)",
            next_step=EXAMPLE,
        )
    return tuple(found)


def check_row(row: Row, conditions: tuple[Condition, ...]) -> tuple[Check, ...]:
    """Every condition on one row; one whose figure was not measured does not hold."""
    return tuple(_check(row, condition) for condition in conditions)


def _check(row: Row, condition: Condition) -> Check:
    value = condition.field.figure(row)
    if value is None:
        return Check(condition, False, "not measured")
    holds = OPERATORS[condition.operator](value, condition.limit)
    unit, factor = next(iter(condition.field.units.items()))
    shown = text.significant(value / factor, 3)
    return Check(condition, holds, f"{shown} {WRITTEN.get(unit, unit)}")


def _parse(part: str, faults: list[str]) -> Condition | None:
    """One condition; what is wrong with it is added to ``faults``."""
    match = CONDITION.fullmatch(part)
    if match is None:
        faults.append(f"{part!r} is no condition" if part else "a condition is empty")
        return None
    field = FIELDS.get(match["field"].lower())
    if field is None:
        near = difflib.get_close_matches(match["field"].lower(), FIELDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        faults.append(f"unknown field {match['field']!r}{hint}")
        return None
    unit = (match["unit"] or "").lower()
    if unit not in field.units and (unit or "pt" in field.units):
        given = f"has no unit {match['unit']!r}" if unit else "needs a unit"
        faults.append(f"{field.name} {given}: {' or '.join(field.units)}")
        return None
    factor = field.units[unit] if unit else next(iter(field.units.values()))
    return Condition(field, match["operator"], float(match["number"]) * factor, part)


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


def _attribute(name: str) -> Callable[[Row], Estimate | None]:
    return lambda row: getattr(row, name)


def _end(estimate: Callable[[Row], Estimate | None], end: str) -> Number:
    def figure(row: Row) -> float | None:
        found = estimate(row)
        return None if found is None else getattr(found, end)

    return figure


def _latency(name: str) -> Number:
    return lambda row: getattr(row.latency, name) if row.latency else None


def _plain(name: str) -> Number:
    return lambda row: getattr(row, name)


def _all_fields() -> dict[str, Field]:
    estimates: list[tuple[str, dict[str, float], Callable[[Row], Estimate | None]]] = [
        ("accuracy", SHARE, _attribute("accuracy")),
        ("accuracy_unseen", SHARE, _attribute("accuracy_unseen")),
        ("accuracy_drop", POINTS, _accuracy_drop),
        *((f"f1_{one}", SHARE, _attribute(f"f1_{one}")) for one in F1),
        ("wer", SHARE, _attribute("wer")),
        ("cer", SHARE, _attribute("cer")),
        ("wer_increase", POINTS, _wer_increase),
        ("p50_ms", MILLISECONDS, _attribute("p50_ms")),
        ("speedup", RATIO, _speedup),
        ("rows_per_s", PER_SECOND, _attribute("rows_per_s")),
    ]
    fields = [
        Field(f"{name}{suffix}", units, _end(figure, end))
        for name, units, figure in estimates
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high"))
    ]
    fields += [Field(name, MILLISECONDS, _latency(name)) for name in PERCENTILES]
    fields += [
        Field("first_call_ms", MILLISECONDS, _plain("first_call_ms")),
        Field("load_s", SECONDS, _plain("load_s")),
        Field("size_mb", MEGABYTES, _plain("size_bytes")),
        Field("adapter_mb", MEGABYTES, _plain("adapter_bytes")),
        Field("memory_mb", MEGABYTES, _plain("peak_memory_bytes")),
        Field("vram_mb", MEGABYTES, lambda row: row.peak_vram_bytes or row.device_bytes),
        Field("energy_mj", JOULES, _plain("energy_j")),
        Field("training_time_s", SECONDS, _plain("training_time_s")),
    ]
    return {field.name: field for field in fields}


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


F1 = ("binary", "macro", "micro", "weighted")
PERCENTILES = ("p90_ms", "p95_ms", "p99_ms", "max_ms")
FIELDS = _all_fields()
