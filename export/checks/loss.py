"""Whether a stage loses more than it may, judged on the interval and not on the estimate.

Where the check rows cannot tell, further validation rows are asked for; where there are none
left, the stage passes undecided, and says how many rows would have told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from finetune.metrics.paired import ErrorCounts, PairedLoss, rows_needed

WINDOW = 512  # further rows whose answers are held at once
LOOKS = 3  # at further rows, each of as many as the one before says are needed
RESERVE = 1.25  # more rows than an estimate asks for: the next estimate is another
Again = Callable[[Sequence[Any]], Any]  # a stage's answers to other rows


class Errors(Protocol):
    """What a task's checks know of errors."""

    further: Sequence[Any]  # validation rows beyond the check rows
    allowed_loss: float  # a share
    loss_of: str  # what is lost, after "points of"
    loss_key: str  # the recipe's key of ``allowed_loss``

    def count_errors(self, answers: Any, start: int) -> ErrorCounts:
        """Errors of answers to the rows from ``start`` on, check rows first, then further ones."""

    def compare_errors(self, counts: ErrorCounts, earlier: ErrorCounts) -> PairedLoss:
        """What the one loses against the other."""


@dataclass(frozen=True)
class Judged:
    """A paired loss and its verdict; ``failure`` and ``note`` are in words for the reader."""

    loss: PairedLoss
    failure: str | None = None
    note: str | None = None
    rows_needed: int | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether the rows cannot tell if more than allowed is lost."""
        return self.note is not None


class LossJudge:
    """Compares stages by their errors, and asks a file again where its rows are too few."""

    def __init__(self, checks: Errors, report: Callable[[str], None]) -> None:
        self._checks = checks
        self._report = report
        self._counts: dict[str, ErrorCounts] = {}
        self._again: dict[str, Again] = {}

    def keep(self, name: str, answers: Any, again: Again | None) -> None:
        """Remember a stage: its errors on the check rows, and how to ask it further ones."""
        self._counts[name] = self._checks.count_errors(answers, 0)
        if again is not None:
            self._again[name] = again

    def judge(self, name: str, before: str) -> Judged:
        """What ``name`` loses against ``before``, on as many rows as are needed and there are."""
        found = self._judge(name, before)
        if name not in self._again or before not in self._again:
            return found
        for _ in range(LOOKS):
            have = found.loss.rows
            there = len(self._checks.rows) + len(self._checks.further)
            rows = min(there, round(RESERVE * (found.rows_needed or there)))
            if not found.is_undecided or rows <= have:
                break
            self._report(f"{name}: {found.note}; asking {rows - have:,} further validation rows")
            self._extend(name, rows)
            self._extend(before, rows)
            found = self._judge(name, before)
        return found

    def _extend(self, name: str, rows: int) -> None:
        """Ask a stage further rows, until it has answered so many."""
        counts = self._counts[name]
        while len(counts) < rows:
            start = len(counts) - len(self._checks.rows)
            asked = self._checks.further[start : start + min(WINDOW, rows - len(counts))]
            counts = counts + self._checks.count_errors(self._again[name](asked), len(counts))
        self._counts[name] = counts

    def _judge(self, name: str, before: str) -> Judged:
        counts, earlier = self._counts[name], self._counts[before]
        rows = min(len(counts), len(earlier))
        loss = self._checks.compare_errors(counts.first(rows), earlier.first(rows))
        return judge_loss(loss, self._checks.allowed_loss, self._checks.loss_of)


def judge_loss(loss: PairedLoss, allowed: float, of: str) -> Judged:
    """Refuse a proven loss over the allowance; say where the interval leaves it open."""
    low, high = loss.interval
    told = (
        f"loses {points(loss.lost)} points of {of} "
        f"({points(low)} to {points(high)} on {loss.rows:,} rows), allowed {points(allowed)}"
    )
    if loss.proven and loss.lost > allowed + 1e-9:  # 0.87 - 0.86 is a little over 0.01
        return Judged(loss, failure=told)
    if high <= allowed + 1e-9:
        return Judged(loss)
    needed = rows_needed(loss, allowed)
    more = f"about {needed:,} rows would tell" if needed else "no number of rows would tell"
    return Judged(loss, note=f"undecided: {told}; {more}", rows_needed=needed)


def points(share: float) -> str:
    """A share in points: 0.0123 is 1.23."""
    return (
        f"{100 * share:.4g}" if abs(share) < 1e-4 else f"{100 * share:.2f}".rstrip("0").rstrip(".")
    )
