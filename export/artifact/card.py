"""The artifact's model card: what it is, how to run it, what was measured; no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from export.artifact.card_metadata import UNKNOWN_LICENSE, Figure, card_metadata
from export.artifact.card_tables import Column, files_table, ladder_table, records_table
from export.artifact.manifest import ArtifactManifest
from finetune.core.escaping import escape_markdown, markdown_code
from finetune.core.files import write_text

SEEN = "seen-in-training"  # a sign's code
MEASURED = {  # manifest key → heading and what the table says
    "search": (
        "What else was tried",
        "Every candidate of the quantisation search, measured on validation rows, never on test "
        "rows.",
    ),
    "merges": ("Merge base", "Both ways to merge the adapter, measured on validation rows."),
    "stability": (
        "Stability",
        "The same rows alone, in batches and padded: dynamic quantisation scales activations by "
        "batch, so that an answer can depend on its neighbours.",
    ),
}


class CardSections(Protocol):
    """What a task says in its model card."""

    pipeline_tag: str  # the hub's word for the task
    library: str  # the hub's word for what opens the folder
    metrics: Sequence[str]  # the hub's words
    columns: Sequence[Column]  # of the table of checks

    def introduce(self, manifest: ArtifactManifest) -> str:
        """What the model does, in a sentence or two."""

    def show_use(self, manifest: ArtifactManifest) -> str:
        """How to run it: Markdown."""

    def figures(self, measured: dict[str, Any]) -> Sequence[Figure]:
        """The figures of a step, or of the trained model, for the card's metadata."""

    def describe_test(self, measured: dict[str, Any]) -> str:
        """The trained model's figures on its test rows, in one clause."""


def write_card(folder: Path, manifest: ArtifactManifest, sections: CardSections) -> None:
    """Write README.md from the manifest's facts."""
    write_text(folder / "README.md", render_card(manifest, sections))


def render_card(manifest: ArtifactManifest, sections: CardSections) -> str:
    """Markdown with Hub metadata; the tables the manifest has figures for."""
    metadata = card_metadata(
        manifest, sections.pipeline_tag, sections.library, sections.metrics, sections.figures
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        _introduction(manifest, sections),
        f"## Use\n\n{sections.show_use(manifest)}\n\n{VERIFIED}",
        f"## Files\n\n{files_table(manifest)}",
        _ladder(manifest, sections),
        *(_measured(manifest, key) for key in MEASURED),
        _signs(manifest),
        _provenance(manifest, sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


VERIFIED = """`manifest.json` holds the SHA-256 of every file; `predict.py` and `kotune verify`
refuse a changed one."""


def _introduction(manifest: ArtifactManifest, sections: CardSections) -> str:
    verdict = "passed" if manifest.status == "passed" else "**FAILED, do not deploy**"
    name = escape_markdown(manifest.name)
    text = f"# {name}\n\n{sections.introduce(manifest)} Export checks: {verdict}."
    if (manifest.license or UNKNOWN_LICENSE) == UNKNOWN_LICENSE:
        text += (
            "\n\nThe license is unknown: no card of a base model states one. Find it out before "
            "you publish this, and export again with `license=…`."
        )
    return text


def _ladder(manifest: ArtifactManifest, sections: CardSections) -> str:
    if not manifest.ladder:
        return ""
    text = "Each step of the export against an earlier one, on validation rows."
    table = ladder_table(manifest.ladder, sections.columns)
    parts = [f"## Export checks\n\n{text}", table]
    parts += ["\n".join(f"- {escape_markdown(note)}." for note in manifest.notes)]
    return "\n\n".join(part for part in parts if part)


def _measured(manifest: ArtifactManifest, key: str) -> str:
    table = records_table(getattr(manifest, key))
    heading, text = MEASURED[key]
    return table and f"## {heading}\n\n{text}\n\n{table}"


def _signs(manifest: ArtifactManifest) -> str:
    """What the training warned of, and how many rows it had seen before."""
    lines = [f"- {escape_markdown(one.message)}." for one in manifest.signs]
    told = {one.figures.get("split") for one in manifest.signs if one.code == SEEN}
    for split in ("validation", "test"):
        seen = getattr(manifest.data, f"{split}_rows_seen_in_training")
        if seen and split not in told:
            lines.append(f"- {seen:,} {split} rows have a text that also stands in training.")
    return "## What the training warned of\n\n" + "\n".join(lines) if lines else ""


def _provenance(manifest: ArtifactManifest, sections: CardSections) -> str:
    told = manifest.provenance
    lines = []
    tested = manifest.metrics.get("test")
    if tested:
        lines.append(
            f"- The model as trained, in PyTorch, on {tested['rows']:,} test rows: "
            f"{sections.describe_test(tested)}."
        )
    packages = ", ".join(f"{name} {version}" for name, version in told.packages.items())
    lines.append(
        f"- Run {markdown_code(manifest.parent.run)}, exported {told.created} with {packages}."
    )
    return "## Where it comes from\n\n" + "\n".join(lines)
