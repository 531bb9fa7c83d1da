"""OpenVINO's files behind the same runtime class."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from export.quantization.candidates import Candidate, build_candidate
from export.quantization.workshop import TRIAL
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError

pytest.importorskip("openvino", reason="an extra: pip install 'kotune[openvino]'")
TEXTS = ["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화", "그냥 오늘 친구 음악 최고"]


@pytest.fixture
def shown(make_workshop):
    """A workshop whose folder shows an fp32 IR to the runtime."""
    workshop = make_workshop("bert")
    path = workshop.scratch("openvino") / "model.xml"
    build_candidate(Candidate("openvino-fp32"), workshop, path)
    workshop.show(path)
    return workshop


def test_one_text_and_many_answer_like_onnx(shown):
    classifier = OnnxClassifier(shown.folder, TRIAL, verify=False)
    logits = classifier.logits(TEXTS)
    assert logits.dtype == np.float32
    alone = np.concatenate([classifier.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, logits, atol=1e-4)
    np.testing.assert_allclose(logits, shown.answer(shown.plain, TEXTS), atol=1e-4)


def test_it_runs_on_the_cpu_only(shown):
    with pytest.raises(ArtifactError, match="CPU only"):
        OnnxClassifier(shown.folder, TRIAL, provider="cuda", verify=False)


def test_a_missing_package_is_told(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArtifactError, match="pip install openvino"):
        OnnxClassifier(shown.folder, TRIAL, verify=False)


def test_a_damaged_file_is_told(shown):
    path = shown.scratch("openvino") / "model.xml"
    path.write_text("<net/>")
    with pytest.raises(ArtifactError, match="cannot be opened"):
        OnnxClassifier(shown.folder, TRIAL, verify=False)


def test_its_makers_are_told_nothing(shown):
    with pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401
