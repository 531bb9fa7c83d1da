"""What a reader is told of the data before training, from its summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune.data.reviews import place_of


def report_data(summary: dict[str, Any], report: Callable[[str], None]) -> None:
    """Rows of each split, dropped rows with their lines, test rows also seen in training."""
    rows = ", ".join(f"{name} {part['rows']:,}" for name, part in summary["splits"].items())
    report(f"data {summary['origin']}: {rows} rows, fingerprint {summary['fingerprint'][:12]}")
    for note in summary.get("notes", ()):
        report(f"  {note}")
    for name, dropped in summary["dropped"].items():
        if dropped and (dropped["no_text"] or dropped["unknown_label"]):
            first = "; ".join(f"{place_of(one)}: {one['why']}" for one in dropped["first"])
            report(
                f"  dropped from {name}: {dropped['no_text']} without text, "
                f"{dropped['unknown_label']} with an unknown label ({first})"
            )
    for split, without in (
        ("validation", "they count like any other"),
        ("test", "accuracy is reported with and without them"),
    ):
        seen = summary[f"{split}_rows_seen_in_training"]
        if seen:
            report(f"  {seen} {split} rows have a text that also stands in training: {without}")
