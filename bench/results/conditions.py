"""Conditions on a result's figures, ``accuracy_drop<=0.2pt, p95_ms<=20``: read without eval.

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

from finetune.core.errors import RecipeError

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
    """A figure that can be asked for; the first of its ``units`` is the one without a unit.

    ``figure`` is a report row's, ``part`` what of it is meant where it has several parts.
    """

    name: str
    units: dict[str, float]
    figure: str
    part: str | None = None


@dataclass(frozen=True)
class Condition:
    """``field`` compared with ``limit`` in the figure's own unit; ``words`` as it was written."""

    field: Field
    operator: str
    limit: float
    words: str


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


def _all_fields() -> dict[str, Field]:
    estimates = {
        **dict.fromkeys(("accuracy", "accuracy_unseen", *F1, "wer", "cer"), SHARE),
        **dict.fromkeys(("accuracy_drop", "wer_increase"), POINTS),
        "p50_ms": MILLISECONDS,
        "speedup": RATIO,
        "rows_per_s": PER_SECOND,
    }
    fields = [
        Field(f"{name}{suffix}", units, name, part)
        for name, units in estimates.items()
        for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high"))
    ]
    fields += [Field(name, MILLISECONDS, "latency", name) for name in PERCENTILES]
    fields += [
        Field("first_call_ms", MILLISECONDS, "first_call_ms"),
        Field("load_s", SECONDS, "load_s"),
        Field("size_mb", MEGABYTES, "size_bytes"),
        Field("adapter_mb", MEGABYTES, "adapter_bytes"),
        Field("memory_mb", MEGABYTES, "peak_memory_bytes"),
        Field("vram_mb", MEGABYTES, "vram_bytes"),
        Field("energy_mj", JOULES, "energy_j"),
        Field("training_time_s", SECONDS, "training_time_s"),
    ]
    return {field.name: field for field in fields}


F1 = ("f1_binary", "f1_macro", "f1_micro", "f1_weighted")
PERCENTILES = ("p90_ms", "p95_ms", "p99_ms", "max_ms")
FIELDS = _all_fields()
