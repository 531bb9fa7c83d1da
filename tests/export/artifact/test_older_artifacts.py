"""Artifacts of the version before: their manifests lack today's keys, and they still open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.artifact.card import render_card
from export.artifact.folder import open_artifact
from export.runtime.classifier import OnnxClassifier
from export.runtime.transcriber import OnnxTranscriber
from export.tasks.registry import find_task

STEP_KEYS = {  # of a step of the ladder before, as both tasks had them
    "name", "kind", "before", "rows", "failure", "largest_logit_difference",
    "mean_logit_difference",
}  # fmt: skip
TEXT_KEYS = {
    "schema", "name", "status", "method", "base", "labels", "max_length", "padding_side",
    "pad_token_id", "opset", "inputs", "outputs", "parent", "tokenizer_sha256", "data", "metrics",
    "license", "files", "settings", "fused_attentions", "stability", "ladder", "provenance",
    "sha256",
}  # fmt: skip
TEXT_STEP_KEYS = STEP_KEYS | {
    "accuracy", "accuracy_interval", "f1_macro", "f1_interval", "flipped", "flipped_above_margin",
    "gained", "lost", "mcnemar_p",
}  # fmt: skip
SPEECH_KEYS = {
    "schema", "name", "task", "status", "method", "parent", "base", "labels", "max_length",
    "pad_token_id", "sampling_rate_hz", "chunk_s", "stride_s", "opset", "inputs", "outputs",
    "files", "settings", "ladder", "provenance", "sha256",
}  # fmt: skip
SPEECH_STEP_KEYS = STEP_KEYS | {
    "wer", "wer_interval", "cer", "changed", "wer_increase", "wer_increase_interval",
}  # fmt: skip
SINCE = {"max_check_rows", "card_example", "flip_margin", "search", "max_unstable_words", "license"}


def make_older(folder: Path, target: Path, keys: set[str], step_keys: set[str]) -> Path:
    """A copy of an artifact whose manifest has the keys of before alone."""
    shutil.copytree(folder, target)
    path = target / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    older = {key: value for key, value in manifest.items() if key in keys}
    assert set(older) == keys
    older["ladder"] = [
        {key: value for key, value in step.items() if key in step_keys} for step in older["ladder"]
    ]
    older["settings"] = {
        key: value for key, value in older["settings"].items() if key not in SINCE
    } | {"language": "ko"}
    older["files"] = {
        name: {
            key: value
            for key, value in entry.items()
            if key not in ("arithmetic", "checked_in", "executed_in")
        }
        for name, entry in older["files"].items()
    }
    path.write_text(json.dumps(older), encoding="utf-8")
    return target


@pytest.fixture
def older_text(make_artifact, tmp_path: Path) -> Path:
    """A classifier's artifact of before."""
    folder = make_artifact("lora", "roberta")
    return make_older(folder, tmp_path / "text", TEXT_KEYS, TEXT_STEP_KEYS)


@pytest.fixture
def older_speech(tones_artifact: Path, tmp_path: Path) -> Path:
    """A recogniser's artifact of before."""
    return make_older(tones_artifact, tmp_path / "speech", SPEECH_KEYS, SPEECH_STEP_KEYS)


def test_a_classifier_opens_and_answers(older_text: Path, make_artifact) -> None:
    artifact = open_artifact(older_text)
    assert (artifact.status, artifact.precisions) == ("passed", ("fp32", "int8"))
    texts = ["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화"]
    today = OnnxClassifier(make_artifact("lora", "roberta"), "fp32")
    assert OnnxClassifier(older_text, "fp32").predict(texts) == today.predict(texts)
    card = render_card(artifact.manifest, find_task("text-classification").card)
    assert "python predict.py TEXT" in card and "language: ko" in card


def test_a_recogniser_opens_and_hears(older_speech: Path, tones_artifact, tones_data) -> None:
    artifact = open_artifact(older_speech)
    assert artifact.status == "passed"
    file = tones_data / "test" / "0.wav"
    today = OnnxTranscriber(tones_artifact, "fp32")
    assert OnnxTranscriber(older_speech, "fp32")(file) == today(file)
    card = render_card(artifact.manifest, find_task("speech-recognition").card)
    assert "| onnx-int8 | onnx-fp32 |" in card
