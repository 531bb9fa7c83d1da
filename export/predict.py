"""Predictions from a folder, whatever it holds: a run or an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.runtime.classifier import OnnxClassifier, softmax
from export.runtime.manifest import ArtifactError, TextError
from export.runtime.texts import several_texts
from finetune.core.errors import DataError, FolderError


@dataclass(frozen=True)
class Prediction:
    """The best label of a text, its probability, and the probability of every label."""

    label: str
    score: float
    text: str
    scores: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)


def predict_texts(
    folder: Path | str, texts: Sequence[str], *, precision: str | None = None
) -> list[Prediction]:
    """Label ``texts`` with a run (PyTorch, as trained) or an artifact (no torch), in order.

    ``precision`` chooses an artifact's file. Raises FolderError, DataError for what is no text.
    """
    folder = Path(folder)
    try:
        texts = list(several_texts(texts))
    except TextError as fault:
        raise DataError(
            "what is to be labelled is no text", received=fault, allowed="a list of strings"
        ) from fault
    if (folder / "manifest.json").is_file():
        labels, logits = _artifact_logits(folder, texts, precision)
    elif (folder / "run.json").is_file():
        labels, logits = _run_logits(folder, texts, precision)
    else:
        raise FolderError(
            "neither a run nor an artifact folder" if folder.exists() else "no such folder",
            received=folder,
            allowed="a folder written by kotune finetune or kotune export",
        )
    return [
        Prediction(
            label=labels[int(row.argmax())],
            score=float(row.max()),
            text=text,
            scores={label: float(score) for label, score in zip(labels, row, strict=True)},
        )
        for text, row in zip(texts, softmax(logits), strict=True)
    ]


def _artifact_logits(
    folder: Path, texts: Sequence[str], precision: str | None
) -> tuple[Sequence[str], np.ndarray]:
    try:
        classifier = OnnxClassifier(folder, precision)
        return classifier.labels, classifier.logits(texts)
    except ArtifactError as fault:
        raise FolderError(str(fault), next_step=f"kotune verify {folder}") from fault


def _run_logits(
    folder: Path, texts: Sequence[str], precision: str | None
) -> tuple[Sequence[str], np.ndarray]:
    from finetune.models.loading import load_tokenizer, load_trained
    from finetune.models.predicting import predict_logits
    from finetune.run_folder import open_run

    if precision is not None:
        raise FolderError(
            "a run has no precisions to choose from, an artifact has",
            received=folder,
            next_step=f"kotune export {folder}",
        )
    run = open_run(folder)
    if run.is_speech:
        raise FolderError(
            "this run transcribes speech",
            received=folder,
            next_step=f"kotune transcribe {folder} FILE.wav",
        )
    tokenizer = load_tokenizer(run.folder / "model")
    model = load_trained(run)
    return run.labels, predict_logits(
        model, tokenizer, texts, preparation=run.preparation, max_length=run.max_length
    )
