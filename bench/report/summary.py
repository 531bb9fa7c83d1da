"""results.json → one tidy row of derived figures per variant, computed once for every writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.report.figures import compare_quality, compare_speeds, mark_front
from bench.report.over_seeds import merge_seeds
from bench.report.rows import Row, describe_row
from bench.report.speech_figures import lengths_of, shown_length
from bench.results.records import Results


@dataclass(frozen=True)
class Summary:
    """Everything the writers show; ``rows`` has the baseline first and failures last.

    ``merged_rows`` are the same with one row for all seeds of a recipe. ``lengths`` are those of
    the audio that was timed, in seconds, ``length`` the one that headline and pictures speak of.
    """

    results: Results
    rows: tuple[Row, ...]
    merged_rows: tuple[Row, ...]
    test_rows: int
    unseen_rows: int
    lengths: tuple[str, ...] = ()
    length: str | None = None

    @property
    def measured(self) -> tuple[Row, ...]:
        """The variants that ran."""
        return tuple(row for row in self.rows if not row.failed)

    @property
    def shown(self) -> tuple[Row, ...]:
        """The variants that ran, each once: without the baseline's second time."""
        return tuple(row for row in self.measured if not row.is_noise_pair)

    @property
    def contenders(self) -> tuple[Row, ...]:
        """Those of them that can be chosen: trained, and of no export that failed."""
        return tuple(row for row in self.shown if not row.export_failed and row.group is None)

    @property
    def titles(self) -> dict[str, str]:
        """Name → how it is shown, of every variant."""
        return {row.name: row.title for row in self.rows}

    @property
    def noise_pair(self) -> Row | None:
        """The baseline's second time, where it was measured."""
        return next((row for row in self.measured if row.is_noise_pair), None)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The variants that did not."""
        return tuple(row for row in self.rows if row.failed)

    @property
    def baseline(self) -> Row | None:
        """The row that the others are compared with; None when it failed."""
        return next((row for row in self.trained if row.is_baseline), None)

    @property
    def trained(self) -> tuple[Row, ...]:
        """The variants that ran of what was trained: not those of a group beside it."""
        return tuple(row for row in self.measured if row.group is None)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """None, which is what was trained, then the groups that were measured beside it."""
        return (None, *self.results.baselines)

    def of_group(self, group: str | None) -> list[Row]:
        """All rows of a group, failed ones too."""
        return [row for row in self.rows if row.group == group]

    @property
    def over_seeds(self) -> Summary:
        """The summary of recipes instead of runs: what a verdict speaks of."""
        return replace(self, rows=self.merged_rows)


def summarise(results: Results) -> Summary:
    """Derive every figure of the report."""
    rows = [describe_row(variant, results) for variant in results.variants]
    if not any(row.is_baseline and row.export_failed for row in rows):
        rows = compare_speeds(compare_quality(rows, results))
    rows = _in_order(mark_front(rows))
    merged = _in_order(merge_seeds(rows, results))
    unseen = sum(1 for seen in results.seen_in_training if not seen)
    return Summary(
        results,
        rows,
        merged,
        len(results.truth or results.references),
        unseen,
        lengths_of(results),
        shown_length(results),
    )


def _in_order(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The baseline first, failures last."""
    return tuple(
        sorted(rows, key=lambda row: (row.failed, not (row.is_baseline and row.group is None)))
    )
