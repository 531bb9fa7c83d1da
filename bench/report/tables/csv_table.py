"""results.csv: one line per variant, one column per figure, numbers as they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields

from bench.report.summary import Row, Summary
from bench.statistics.latency import AccuracyComparison, Estimate, LatencySummary

SKIPPED = {"latency_samples"}


def render_csv(summary: Summary) -> str:
    """The table as CSV (UTF-8, \\n); figures nobody has are left out, missing ones are empty."""
    return write_records([dict(_figures(row)) for row in summary.rows])


def write_records(records: Sequence[Mapping[str, object]]) -> str:
    """Records as CSV; a column for every key that one of them has."""
    names = list(dict.fromkeys(name for record in records for name in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _written(value) for name, value in record.items()})
    return stream.getvalue()


def _written(value: object) -> object:
    """Ten digits of a float: more differ between machines and mean nothing."""
    return f"{value:.10g}" if isinstance(value, float) else value


def _figures(row: Row) -> Iterator[tuple[str, object]]:
    """Column name and value of everything that the row has."""
    for field in fields(row):
        value = getattr(row, field.name)
        if value is None or field.name in SKIPPED:
            continue
        if isinstance(value, Estimate):
            ends = {"": value.value, "_low": value.low, "_high": value.high}
            yield from ((f"{field.name}{end}", v) for end, v in ends.items() if v is not None)
        elif isinstance(value, AccuracyComparison):
            yield from _comparison(value)
        elif isinstance(value, LatencySummary):
            named = asdict(value)
            yield from ((k, v) for k, v in named.items() if k not in ("count", "p50_ms"))
            yield "latency_count", value.count
        else:
            yield field.name, int(value) if isinstance(value, bool) else value


def _comparison(value: AccuracyComparison) -> Iterator[tuple[str, object]]:
    pair = value.paired
    yield from (
        ("accuracy_difference", pair.difference),
        ("accuracy_difference_low", pair.interval[0]),
        ("accuracy_difference_high", pair.interval[1]),
        ("gained_rows", pair.gained),
        ("lost_rows", pair.lost),
        ("mcnemar_test", pair.test),
        ("mcnemar_p", pair.p_value),
        ("mcnemar_p_holm", value.p_adjusted),
        ("accuracy_finding", value.finding),
    )
