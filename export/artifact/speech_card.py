"""The model card of a speech artifact: short, and only what the manifest knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.artifact.card_tables import NOTHING, files_table, markdown_table
from finetune.core.files import write_text

HEADINGS = (
    "stage",
    "against",
    "recordings",
    "WER",
    "95 % interval",
    "CER",
    "largest logit difference",
    "changed transcripts",
)


def write_speech_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md from the manifest's facts."""
    write_text(folder / "README.md", render_speech_card(manifest))


def render_speech_card(manifest: dict[str, Any]) -> str:
    """Markdown with Hub metadata: what it is, how it was checked, how to run it."""
    verdict = "passed" if manifest["status"] == "passed" else "**FAILED, do not deploy**"
    return f"""---
pipeline_tag: automatic-speech-recognition
tags: [onnx, kotune]
---

# {manifest["name"]}

A wav2vec2 that transcribes speech by CTC ({manifest["base"]["source"]}, {manifest["method"]}),
exported to ONNX by kotune {manifest["provenance"]["kotune"] or ""}. It works at
{manifest["sampling_rate_hz"]:,} Hz; recordings over {manifest["chunk_s"]:g} s are cut into chunks
that overlap by {manifest["stride_s"]:g} s on either side. Export checks: {verdict}.

{files_table(manifest)}

Each stage against an earlier one, on validation recordings:

{markdown_table(HEADINGS, [_step_cells(step) for step in manifest["ladder"]])}

```
python predict.py recording.wav   # needs numpy, onnxruntime, soundfile, soxr (.xml: openvino)
kotune transcribe FOLDER recording.wav
```
"""


def _step_cells(step: dict[str, Any]) -> list[str]:
    low, high = step["wer_interval"]
    drift, changed = step["largest_logit_difference"], step["changed"]
    return [
        step["name"] + (" (failed)" if step["failure"] else ""),
        step["before"] or NOTHING,
        str(step["rows"]),
        f"{step['wer']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{step['cer']:.2%}",
        NOTHING if drift is None else f"{drift:.1e}",
        NOTHING if changed is None else str(changed),
    ]
