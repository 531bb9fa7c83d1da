"""Made-up rows: what they are, that every step answers them, and which limit names one."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import sing

from export.artifact.folder import open_artifact
from export.checks.accuracy import AccuracyChecks, CheckRows, Thresholds
from export.checks.edges import Edge, compare_edges, find_clear_margin, find_edge_failure
from export.checks.ladder import Ladder
from export.checks.speech_edges import make_speech_edges
from export.checks.text_edges import make_text_edges
from export.exporting import export_run
from export.predict import predict_texts
from export.runtime.classifier import OnnxClassifier
from finetune.core.errors import GateError
from finetune.run_folder import open_run
from finetune.tasks.speech.model import run_settings

EDGES = [Edge("empty", ""), Edge("emoji", "😀")]
TEXT_EDGES = {
    "empty", "white space", "one character", "longest", "beyond max_length", "line breaks", "NFD",
    "unknown characters", "emoji", "other scripts", "control characters", "one word many times",
    "punctuation",
}  # fmt: skip
SPEECH_EDGES = {
    "shortest", "one frame", "silence", "clipped", "quiet", "white noise", "longer than a chunk",
    "stereo", "8,000 Hz", "22,050 Hz", "48,000 Hz",
}  # fmt: skip


def count_letters(text: str) -> int:
    return len(text.replace(" ", ""))


def test_made_up_texts_are_what_they_are_called() -> None:
    made = {
        edge.name: edge.row for edge in make_text_edges(["가나 다", "라마바"], 64, count_letters)
    }
    assert set(made) == TEXT_EDGES
    assert made["empty"] == "" and len(made["one character"]) == 1
    assert 60 < count_letters(made["longest"]) <= 64 < count_letters(made["beyond max_length"])
    assert not unicodedata.is_normalized("NFC", made["NFD"])
    assert {"\n", "\r"} <= set(made["line breaks"])
    assert make_text_edges([" ", ""], 8, count_letters)  # data without a word have edges too


def test_made_up_recordings_are_what_they_are_called(tones_run: Path) -> None:
    settings = run_settings(open_run(tones_run))
    made = {edge.name: edge.row for edge in make_speech_edges([sing("AB", 16_000)], settings, 1)}
    assert set(made) == SPEECH_EDGES
    assert len(made["shortest"]) == 1 and not made["silence"].any()
    assert (np.abs(made["clipped"]) == 1).mean() > 0.1
    with soundfile.SoundFile(io.BytesIO(made["stereo"])) as file:
        assert file.channels == 2
    with soundfile.SoundFile(io.BytesIO(made["8,000 Hz"])) as file:
        assert file.samplerate == 8_000
    with soundfile.SoundFile(io.BytesIO(made["longer than a chunk"])) as file:
        assert file.frames > settings.chunk_s * settings.rate_hz


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_every_step_of_a_classifier_answers_them(make_artifact, kind) -> None:
    _, *steps = open_artifact(make_artifact("lora", kind)).manifest.ladder
    for step in steps:
        assert step["edges"]["rows"] == len(TEXT_EDGES), step["name"]
        assert step["edges"]["broken"] == {}
    for step in steps[1:]:
        assert step["edges"]["furthest"] in TEXT_EDGES
        assert step["edges"]["largest_logit_difference"] < (
            1e-4 if "int8" not in step["name"] else 1
        )


def test_every_precision_of_a_recogniser_answers_them(tones_artifact: Path) -> None:
    ladder = json.loads((tones_artifact / "manifest.json").read_text())["ladder"]
    steps = {step["name"]: step["edges"] for step in ladder}
    for name in ("reloaded", "merged", "onnx-fp32", "onnx-int8"):
        assert steps[name]["rows"] == len(SPEECH_EDGES) and steps[name]["broken"] == {}
    assert 0 < steps["onnx-fp32"]["largest_logit_difference"] < 1e-3


def test_a_crossed_limit_names_the_made_up_row(make_run, tmp_path) -> None:
    with pytest.raises(GateError, match=r"onnx-fp32: (.|\n)*made-up row '[a-z]"):
        export_run(
            make_run("lora", "roberta"),
            tmp_path / "artifact",
            overrides=["max_logit_difference=1e-12", "max_accuracy_drop=1"],
        )


def logits_of(*rows: list[float]) -> list[np.ndarray]:
    return [np.array([row], dtype=np.float32) for row in rows]


def judge(now: list[np.ndarray], before: list[np.ndarray], kind: str, clear: float = 0.0):
    step = compare_edges(EDGES, now, before)
    return find_edge_failure(step, kind, limit=1e-3, flip_margin=0.1, clear_margin=clear)


BEFORE = logits_of([2.0, 0.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("now", "kind", "failure"),
    [
        (logits_of([2.0, 0.0], [0.0, np.nan]), "quantized", "'emoji': logits are not finite"),
        (logits_of([2.0, 0.0, 1.0], [0.0, 1.0]), "float", "'empty': logits (1, 3), before (1, 2)"),
        (logits_of([2.0, 0.002], [0.0, 1.0]), "float", "'empty': largest logit difference 0.002"),
        (logits_of([2.5, 0.5], [0.0, 1.5]), "quantized", None),
        (logits_of([2.0, 0.0], [1.0, 0.5]), "quantized", "'emoji': a label flipped whose margin"),
        (logits_of([2.0, 0.002], [0.0, 1.0]), "reported", None),
    ],
)
def test_what_a_stage_may_do_to_made_up_rows(now, kind, failure) -> None:
    found = judge(now, BEFORE, kind)
    assert found is None if failure is None else failure in found


def test_a_quantised_stage_may_flip_what_was_not_clear_on_real_rows() -> None:
    flipped = logits_of([2.0, 0.0], [1.0, 0.5])
    real = logits_of([3.0, 0.0], [0.0, 1.5], [0.2, 0.0])
    assert find_clear_margin(real, moved=0.1) == pytest.approx(1.5)
    assert find_clear_margin(real, moved=1.0) == pytest.approx(2.0)
    assert judge(flipped, BEFORE, "quantized", clear=1.5) is None
    assert "allowed 0.5" in judge(flipped, BEFORE, "quantized", clear=0.5)


def test_the_ladder_fails_on_them_alone() -> None:
    stored = np.array([[0.0, 1.0]] * 3, dtype=np.float32)
    rows = CheckRows(("a", "b", "c"), np.ones(3, dtype=np.int64), stored)
    checks = AccuracyChecks(rows, Thresholds(1e-3, 1.0, max_flipped_above_margin=1.0), EDGES)
    ladder = Ladder(checks, lambda line: None)
    made_up = np.concatenate(BEFORE)
    ladder.climb("fp32", "reference", stored, edges=made_up)
    assert ladder.climb("int8", "quantized", stored, "fp32", edges=made_up).failure is None
    broken = made_up.copy()
    broken[0] = np.inf
    step = ladder.climb("fp16", "quantized", stored, "fp32", edges=broken)
    assert step.failure == "made-up row 'empty': logits are not finite numbers"
    with pytest.raises(GateError, match="fp16: made-up row 'empty'"):
        ladder.gate(kept="here")


def test_a_text_without_a_token_is_answered_alike_everywhere(make_run, make_artifact) -> None:
    """The tiny bases' tokenizers add no special tokens, so that an empty text has none at all."""
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32")
    assert classifier.encode([""]) == [[classifier.manifest.pad_token_id]]
    alone = classifier.logits([""])
    company = classifier.logits(["최고 감동 명작 추천 영화", ""])[1:]
    np.testing.assert_allclose(company, alone, atol=1e-5)
    (torch,) = predict_texts(make_run("lora", "roberta"), [""])
    (onnx,) = predict_texts(make_artifact("lora", "roberta"), [""], precision="fp32")
    assert torch.score == pytest.approx(onnx.score, abs=1e-5)
