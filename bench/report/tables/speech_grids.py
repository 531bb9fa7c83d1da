"""The tables of a speech report: error rates, then speed and latency of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report import text
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.report.tables.grids import Grid
from bench.statistics.decisions import Estimate

NOTHING = "–"
MARKS = {"better": " ▲", "worse": " ▼", "tie": " ≈"}
PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")


def group_words(summary: Summary, group: str | None) -> str:
    """A group as a reader knows it."""
    if group is not None:
        return "random weights, base-960h's architecture"
    runs = {one.run for one in summary.results.variants if one.group is None}
    return "the trained model" if len(runs) == 1 else "the trained models"


def errors_grid(summary: Summary) -> Grid:
    """WER and CER of the trained model's variants, and what they differ from the baseline's."""
    headings = ("WER, %", "CER, %", "WER against baseline, points", "changed transcripts")
    rows = [
        (row.title, _percent(row.wer), _percent(row.cer), *_gap(row))
        for row in summary.trained
        if row.wer and row.cer
    ]
    return _grid(
        f"Error rates on {text.plural(len(summary.results.references), 'test recording')}",
        headings,
        rows,
    )


def speed_grid(summary: Summary, group: str | None) -> Grid:
    """Size, memory, start and speed against the group's baseline at every length."""
    baseline = next(row for row in summary.of_group(group) if row.is_baseline)
    headings = (
        "size, MB",
        "of baseline",
        "peak memory, MB",
        "load, s",
        *(f"speed at {length} s" for length in summary.lengths),
    )
    rows = [
        (
            row.title,
            _figure(row.size_bytes, text.megabytes),
            _share_of(row.size_bytes, baseline.size_bytes),
            _figure(row.peak_memory_bytes, text.megabytes),
            _figure(row.load_s, lambda seconds: f"{seconds:.2f}"),
            *(_speed(row, length) for length in summary.lengths),
        )
        if not row.failed
        else (row.title, *[NOTHING] * len(headings))
        for row in summary.of_group(group)
    ]
    failures = [row for row in summary.of_group(group) if row.failed]
    return _grid(
        f"Size, memory and speed against {baseline.name}: {group_words(summary, group)}",
        headings,
        rows,
        failed={row.title for row in failures},
        remarks=[f"{row.name}: {row.reason or 'no reason was recorded'}" for row in failures],
    )


def latency_grid(summary: Summary, group: str | None) -> Grid:
    """Percentiles and real-time factor, a row for each variant and length."""
    headings = ("audio, s", "p50, ms", "p90, ms", "p95, ms", "p99, ms", "RTF")
    rows = [
        (
            row.title,
            length,
            *(text.milliseconds(getattr(found.latency, name)) for name in PERCENTILES),
            _interval(found.rtf, text.significant),
        )
        for row in summary.of_group(group)
        for length, found in row.lengths.items()
    ]
    return _grid(f"Latency and real-time factor: {group_words(summary, group)}", headings, rows)


def _grid(
    name: str,
    headings: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    *,
    failed: frozenset[str] | set[str] = frozenset(),
    remarks: Sequence[str] = (),
) -> Grid:
    marks = tuple(row[0] in failed for row in rows)
    return Grid(name, tuple(headings), tuple(rows), marks, tuple(remarks))


def _gap(row: Row) -> tuple[str, str]:
    if row.errors is None:
        return NOTHING, NOTHING
    found, mark = row.errors.difference, MARKS[row.errors.finding]
    changed = NOTHING if row.errors.changed is None else str(row.errors.changed)
    if found.low is None or found.high is None:
        return f"{text.points(found.value)}{mark}", changed
    ends = text.span(text.points(found.low), text.points(found.high))
    return f"{text.points(found.value)}{mark} ({ends})", changed


def _speed(row: Row, length: str) -> str:
    """How many times as fast as the baseline, with its interval."""
    if row.is_baseline:
        return "1x"
    found = row.lengths.get(length)
    if found is None or found.speedup is None:
        return NOTHING
    tie = MARKS["tie"] if found.speed_finding == "tie" else ""
    return _interval(found.speedup, text.times, f"x{tie}")


def _figure(value: float | None, written: Callable[[float], str]) -> str:
    return NOTHING if value is None else written(value)


def _share_of(value: float | None, whole: float | None) -> str:
    return f"{value / whole:.2f}x" if value and whole else NOTHING


def _percent(share: Estimate) -> str:
    return _interval(share, text.percent)


def _interval(found: Estimate, written: Callable[[float], str], unit: str = "") -> str:
    shown = f"{written(found.value)}{unit}"
    if found.low is None or found.high is None:
        return shown
    return f"{shown} ({text.span(written(found.low), written(found.high))})"
