"""The small tables: what training cost, and the ladder of each artifact.

A column without a figure is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.report import text
from bench.results.records import Results
from bench.results.speech_records import SpeechResults

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


def training_grid(results: Results | SpeechResults) -> Grid | None:
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


def ladder_grids(results: Results | SpeechResults) -> list[Grid]:
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
