"""The tables of a speech report: error rates, then speed and latency of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report import text
from bench.report.speech_summary import SpeechRow, SpeechSummary
from bench.report.tables.grids import Grid
from bench.results.speech_records import BASE
from bench.statistics.decisions import Estimate

NOTHING = "–"
MARKS = {"better": " ▲", "worse": " ▼", "tie": " ≈"}
PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")


def group_words(group: str) -> str:
    """A group as a reader knows it."""
    return "random weights, base-960h's architecture" if group == BASE else "the trained model"


def errors_grid(summary: SpeechSummary) -> Grid:
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


def speed_grid(summary: SpeechSummary, group: str) -> Grid:
    """Size, memory, start and speed against the group's baseline at every length."""
    baseline = summary.baseline_of(group)
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
            text.megabytes(row.size_bytes),
            f"{row.size_bytes / baseline.size_bytes:.2f}x",
            NOTHING if row.peak_memory_bytes is None else text.megabytes(row.peak_memory_bytes),
            NOTHING if row.load_s is None else f"{row.load_s:.2f}",
            *(_speed(row, length) for length in summary.lengths),
        )
        if not row.failed
        else (row.title, *[NOTHING] * len(headings))
        for row in summary.of_group(group)
    ]
    failures = [row for row in summary.of_group(group) if row.failed]
    return _grid(
        f"Size, memory and speed against {baseline.name}: {group_words(group)}",
        headings,
        rows,
        failed={row.title for row in failures},
        remarks=[f"{row.name}: {row.reason or 'no reason was recorded'}" for row in failures],
    )


def latency_grid(summary: SpeechSummary, group: str) -> Grid:
    """Percentiles and real-time factor, a row for each variant and length."""
    headings = ("audio, s", "p50, ms", "p90, ms", "p95, ms", "p99, ms", "RTF")
    rows = [
        (
            row.title,
            length,
            *(text.milliseconds(getattr(found, name)) for name in PERCENTILES),
            _interval(row.rtf[length], text.significant),
        )
        for row in summary.of_group(group)
        for length, found in row.latency.items()
    ]
    return _grid(f"Latency and real-time factor: {group_words(group)}", headings, rows)


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


def _gap(row: SpeechRow) -> tuple[str, str]:
    if row.gap is None:
        return NOTHING, NOTHING
    ends = text.span(*(text.points(end) for end in row.gap.interval))
    mark = MARKS[row.finding]
    return f"{text.points(row.gap.difference)}{mark} ({ends})", str(row.gap.changed)


def _speed(row: SpeechRow, length: str) -> str:
    """How many times as fast as the baseline, with its interval."""
    if row.is_baseline:
        return "1x"
    found = row.speedup.get(length)
    if found is None:
        return NOTHING
    tie = MARKS["tie"] if row.speed_finding(length) == "tie" else ""
    return _interval(found, text.times, f"x{tie}")


def _percent(share: Estimate) -> str:
    return _interval(share, text.percent)


def _interval(found: Estimate, written: Callable[[float], str], unit: str = "") -> str:
    shown = f"{written(found.value)}{unit}"
    if found.low is None or found.high is None:
        return shown
    return f"{shown} ({text.span(written(found.low), written(found.high))})"
