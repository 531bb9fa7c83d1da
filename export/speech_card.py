"""The model card of a speech artifact: short, and only what the manifest knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.files import write_text


def write_speech_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md from the manifest's facts."""
    write_text(folder / "README.md", render_speech_card(manifest))


def render_speech_card(manifest: dict[str, Any]) -> str:
    """Markdown with Hub metadata: what it is, how it was checked, how to run it."""
    verdict = "passed" if manifest["status"] == "passed" else "**FAILED, do not deploy**"
    files = "\n".join(
        f"| {precision} | `{entry['path']}` | {entry['bytes'] / 1e6:.1f} MB | {_processor(entry)} |"
        for precision, entry in manifest["files"].items()
    )
    steps = "\n".join(_step_row(step) for step in manifest["ladder"])
    return f"""---
pipeline_tag: automatic-speech-recognition
tags: [onnx, kotune]
---

# {manifest["name"]}

A wav2vec2 that transcribes speech by CTC ({manifest["base"]["source"]}, {manifest["method"]}),
exported to ONNX by kotune {manifest["provenance"]["kotune"] or ""}. It works at
{manifest["sampling_rate_hz"]:,} Hz; recordings over {manifest["chunk_s"]:g} s are cut into chunks
that overlap by {manifest["stride_s"]:g} s on either side. Export checks: {verdict}.

| precision | file | size | made for |
|---|---|---|---|
{files}

Each stage against the one before, on validation recordings:

| stage | recordings | WER | 95 % interval | CER | largest logit difference | changed transcripts |
|---|---|---|---|---|---|---|
{steps}

```
python predict.py recording.wav   # needs numpy, onnxruntime, soundfile and soxr
kotune transcribe FOLDER recording.wav
```
"""


def _processor(entry: dict[str, Any]) -> str:
    chosen = entry.get("instruction_set")
    return f"CPU, {chosen['name']}" if chosen else "any"


def _step_row(step: dict[str, Any]) -> str:
    low, high = step["wer_interval"]
    drift, changed = step["largest_logit_difference"], step["changed"]
    cells = [
        step["name"] + (" (failed)" if step["failure"] else ""),
        str(step["rows"]),
        f"{step['wer']:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{step['cer']:.2%}",
        "–" if drift is None else f"{drift:.1e}",
        "–" if changed is None else str(changed),
    ]
    return f"| {' | '.join(cells)} |"
