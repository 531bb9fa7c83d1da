"""results.csv: one line per variant, one column per figure, numbers as they are."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields

from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import AccuracyComparison, Estimate
from bench.statistics.latency import LatencySummary
from finetune.core.escaping import csv_cell

SKIPPED = {"latency_samples", "seeds", "seed_accuracies", "seed_wers", "lengths"}


def render_csv(summary: Summary) -> str:
    """The table as CSV (UTF-8, \\n); figures nobody has are left out, missing ones are empty.

    Below the variants stands a line for each recipe of several seeds: it has a count in
    ``seeds``, means for figures, and Student's intervals and test.
    """
    several = [row for row in summary.merged_rows if row.seeds]
    return write_records([dict(_figures(row)) for row in (*summary.rows, *several)])


def write_records(records: Sequence[Mapping[str, object]]) -> str:
    """Records as CSV; a column for every key that one of them has."""
    names = list(dict.fromkeys(name for record in records for name in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: csv_cell(value) for name, value in record.items()})
    return stream.getvalue()


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
    yield from _over_seeds(row)


def _over_seeds(row: Row) -> Iterator[tuple[str, object]]:
    """How many seeds a line stands for, which, and how far they lie apart."""
    if not row.seeds:
        return
    yield "seeds", len(row.seeds)
    yield "seed_list", " ".join(map(str, row.seeds))
    if row.seed_accuracies:
        shares = list(row.seed_accuracies.values())
        yield from (("accuracy_min", min(shares)), ("accuracy_max", max(shares)))
        yield "accuracy_sd", statistics.stdev(shares)


def _comparison(value: AccuracyComparison) -> Iterator[tuple[str, object]]:
    found, pair = value.difference, value.paired
    yield "accuracy_difference", found.value
    if found.low is not None and found.high is not None:
        yield from (
            ("accuracy_difference_low", found.low),
            ("accuracy_difference_high", found.high),
        )
    if pair is not None:
        yield from (("gained_rows", pair.gained), ("lost_rows", pair.lost))
    kind, test = ("seeds", value.test) if pair is None else ("mcnemar", pair.test)
    yield from (
        (f"{kind}_test", test),
        (f"{kind}_p", value.p_value),
        (f"{kind}_p_holm", value.p_adjusted),
        ("accuracy_finding", value.finding),
    )
