"""ONNX Runtime by IOBinding, on the CPU: the same code as on a GPU with another device's name."""

from __future__ import annotations

import numpy as np

from bench.cuda_engines import BoundSession
from export.runtime import OnnxClassifier

TEXTS = ["정말 재미있다 최고", "지루하다 실망 영화", "감동 추천 명작 영화 배우", "최악 별로"]


def test_io_binding_gives_the_sessions_answers(make_artifact) -> None:
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32", threads=1)
    expected = classifier.logits(TEXTS)
    classifier._session = BoundSession(classifier._session, "cpu")
    np.testing.assert_array_equal(classifier.logits(TEXTS), expected)
    np.testing.assert_array_equal(classifier.logits(TEXTS[:1]), expected[:1])
