"""The artifact's model card: short, and only what the manifest knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.files import write_text


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md from the manifest's facts."""
    write_text(folder / "README.md", render_card(manifest))


def render_card(manifest: dict[str, Any]) -> str:
    """Markdown with Hub metadata: what it is, how it was checked, how to run it."""
    name, labels = manifest["name"], manifest["labels"]
    verdict = "passed" if manifest["status"] == "passed" else "**FAILED, do not deploy**"
    files = "\n".join(
        f"| {precision} | `{entry['path']}` | {entry['bytes'] / 1e6:.1f} MB | {_processor(entry)} |"
        for precision, entry in manifest["files"].items()
    )
    steps = "\n".join(_step_row(step) for step in manifest["ladder"])
    return f"""---
pipeline_tag: text-classification
tags: [onnx, kotune]
---

# {name}

A text classifier with the labels {", ".join(labels)}: `{manifest["base"]["source"]}`, fine-tuned
({manifest["method"]}) and exported to ONNX by kotune {manifest["provenance"]["kotune"] or ""}.
Texts are cut at {manifest["max_length"]} tokens. Export checks: {verdict}.

| precision | file | size | made for |
|---|---|---|---|
{files}

Each stage against the one before, on validation rows:

| stage | rows | accuracy | largest logit difference | flipped labels |
|---|---|---|---|---|
{steps}

```
kotune predict FOLDER "TEXT"
```
"""


def _processor(entry: dict[str, Any]) -> str:
    chosen = entry.get("instruction_set")
    return f"CPU, {chosen['name']}" if chosen else "any"


def _step_row(step: dict[str, Any]) -> str:
    accuracy = "not finite" if step["accuracy"] is None else f"{step['accuracy']:.4f}"
    drift, flipped = step["largest_logit_difference"], step["flipped"]
    cells = [
        step["name"] + (" (failed)" if step["failure"] else ""),
        str(step["rows"]),
        accuracy,
        "–" if drift is None else f"{drift:.1e}",
        "–" if flipped is None else str(flipped),
    ]
    return f"| {' | '.join(cells)} |"
