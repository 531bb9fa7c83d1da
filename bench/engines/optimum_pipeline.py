"""Optimum's ONNX Runtime model in ``transformers.pipeline``: what people deploy with today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.artifact.folder import open_artifact


def open_optimum(folder: Path, precision: str, device: str, threads: int) -> tuple[Any, int]:
    """(a text classification pipeline over an artifact's file, the length texts are cut at)."""
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    from export.runtime.arithmetic import provider_options
    from export.runtime.session import session_options

    artifact = open_artifact(folder, verify=False)
    file = artifact.path(precision)
    options = session_options(threads, artifact.manifest["files"][precision])
    model = ORTModelForSequenceClassification.from_pretrained(
        artifact.folder,
        subfolder=file.parent.name,
        file_name=file.name,
        session_options=options,
        provider=f"{device.upper()}ExecutionProvider",
        provider_options=provider_options(device),
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(artifact.folder, local_files_only=True)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    return pipe, artifact.max_length
