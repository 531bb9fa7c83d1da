"""The artifact's model card: what it is, how to run it, what was measured; no more than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.artifact.card_metadata import UNKNOWN_LICENSE, base_name, card_metadata
from export.artifact.card_tables import files_table, ladder_table, records_table
from finetune.core.files import write_text

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


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md from the manifest's facts."""
    write_text(folder / "README.md", render_card(manifest))


def render_card(manifest: dict[str, Any]) -> str:
    """Markdown with Hub metadata; the tables the manifest has figures for."""
    parts = [
        f"---\n{card_metadata(manifest).to_yaml()}\n---",
        _introduction(manifest),
        _usage(manifest),
        f"## Files\n\n{files_table(manifest)}",
        _ladder(manifest),
        *(_measured(manifest, key) for key in MEASURED),
        _provenance(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(manifest: dict[str, Any]) -> str:
    verdict = "passed" if manifest["status"] == "passed" else "**FAILED, do not deploy**"
    kotune = manifest["provenance"]["kotune"] or ""
    text = f"""# {manifest["name"]}

A text classifier with the labels {", ".join(manifest["labels"])}: `{base_name(manifest["base"])}`,
fine-tuned ({manifest["method"]}) and exported to ONNX by kotune {kotune}.
Texts are cut at {manifest["max_length"]} tokens. Export checks: {verdict}."""
    if (manifest.get("license") or UNKNOWN_LICENSE) == UNKNOWN_LICENSE:
        text += (
            "\n\nThe license is unknown: the base model's card states none. Find it out before "
            "you publish this, and export again with `license=…`."
        )
    return text


def _usage(manifest: dict[str, Any]) -> str:
    precision = "int8" if "int8" in manifest["files"] else next(iter(manifest["files"]))
    file = Path(manifest["files"][precision]["path"])
    return f"""## Use

`predict.py` needs Python 3.10 with numpy, onnxruntime and tokenizers, and nothing else:

```
python predict.py "영화 정말 재미있어요"
python predict.py --json < texts.txt
```

With Optimum and transformers:

```python
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

folder = "."  # or the hub id
model = ORTModelForSequenceClassification.from_pretrained(
    folder, subfolder="{file.parent}", file_name="{file.name}"
)
classify = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(classify("영화 정말 재미있어요", truncation=True))
```

`manifest.json` holds the SHA-256 of every file; `predict.py` and `kotune verify` refuse a changed
one."""


def _ladder(manifest: dict[str, Any]) -> str:
    if not manifest["ladder"]:
        return ""
    text = "Each step of the export against an earlier one, on validation rows."
    return f"## Export checks\n\n{text}\n\n{ladder_table(manifest['ladder'])}"


def _measured(manifest: dict[str, Any], key: str) -> str:
    table = records_table(manifest.get(key))
    heading, text = MEASURED[key]
    return table and f"## {heading}\n\n{text}\n\n{table}"


def _provenance(manifest: dict[str, Any]) -> str:
    told = manifest["provenance"]
    lines = []
    tested = manifest.get("metrics", {}).get("test")
    if tested:
        low, high = tested["accuracy_interval"]
        lines.append(
            f"- The model as trained, in PyTorch, on {tested['rows']:,} test rows: accuracy "
            f"{tested['accuracy']:.4f} ({low:.4f} to {high:.4f}), macro F1 "
            f"{tested['f1_macro']:.4f}."
        )
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    lines.append(
        f"- Run `{manifest['parent']['run']}`, exported {told['created']} with {packages}."
    )
    return "## Where it comes from\n\n" + "\n".join(lines)
