"""data.json: what was read, what was dropped and why, and what a reader is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field

from finetune.core.documents import Document

DATA_SCHEMA = "kotune.data/1"


class DroppedRow(Document):
    """A row left out: its number, its line where that is another, and the reason."""

    row: int
    line: int | None = None
    why: str

    @property
    def place(self) -> str:
        """``row 5``, or ``row 5 (line 9)``."""
        return f"row {self.row}" + ("" if self.line is None else f" (line {self.line})")

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


class Dropped(Document):
    """How many rows of a table were left out, by reason, and the first of them."""

    no_text: int = 0
    unknown_label: int = 0
    too_long: int = 0
    unreadable: int = 0
    first: tuple[DroppedRow, ...] = ()

    @property
    def any(self) -> bool:
        """Whether a row was dropped."""
        return bool(self.no_text or self.unknown_label or self.too_long or self.unreadable)


class SplitSummary(Document):
    """One split: its rows; of texts their balance and duplicates, of recordings their length."""

    rows: int
    balance: dict[str, int] = Field({})
    duplicate_texts: int = 0
    texts_changed_by_preparation: int = 0
    seconds: float = 0
    longest_s: float = 0
    words: int = 0
    speakers: tuple[str, ...] = ()


class DataSummary(Document):
    """data.json; ``fingerprint`` is a SHA-256 over the rows of every split."""

    origin: str
    labels: tuple[str, ...] = ()
    splits: dict[str, SplitSummary]
    dropped: dict[str, Dropped | None] = Field({})
    test_rows_seen_in_training: int = 0
    validation_rows_seen_in_training: int = 0
    fingerprint: str
    notes: tuple[str, ...] = ()
    token_lengths: dict[str, int] = Field({})
    tokens: dict[str, dict[str, Any]] = Field({})

    def seen_in_training(self, split: str) -> int:
        """Rows of ``validation`` or ``test`` whose text the training has seen."""
        return getattr(self, f"{split}_rows_seen_in_training")


def report_data(summary: DataSummary, report: Callable[[str], None]) -> None:
    """Rows of each split, dropped rows with their lines, test rows also seen in training."""
    rows = ", ".join(f"{name} {part.rows:,}" for name, part in summary.splits.items())
    _report_read(summary, f"{rows} rows", ("unknown_label",), report)
    for split, without in (
        ("validation", "they count like any other"),
        ("test", "accuracy is reported with and without them"),
    ):
        seen = summary.seen_in_training(split)
        if seen:
            report(f"  {seen} {split} rows have a text that also stands in training: {without}")


def report_recordings(summary: DataSummary, report: Callable[[str], None]) -> None:
    """Recordings of each split and their minutes, dropped ones with the reasons."""
    rows = ", ".join(
        f"{name} {part.rows:,} ({part.seconds / 60:.1f} min)"
        for name, part in summary.splits.items()
    )
    _report_read(summary, rows, ("too_long", "unreadable"), report)


REASONS = {
    "unknown_label": "with an unknown label",
    "too_long": "too long",
    "unreadable": "unreadable",
}


def _report_read(
    summary: DataSummary, rows: str, reasons: Sequence[str], report: Callable[[str], None]
) -> None:
    """What was read, what its reader noted, and what was dropped for which of the reasons."""
    report(f"data {summary.origin}: {rows}, fingerprint {summary.fingerprint[:12]}")
    for note in summary.notes:
        report(f"  {note}")
    for name, dropped in summary.dropped.items():
        if dropped and dropped.any:
            counts = [f"{dropped.no_text} without text"]
            counts += [f"{getattr(dropped, one)} {REASONS[one]}" for one in reasons]
            first = "; ".join(map(str, dropped.first)) or "–"
            report(f"  dropped from {name}: {', '.join(counts)} ({first})")
