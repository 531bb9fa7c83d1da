"""OpenVINO's files behind the same runtime class."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


CLOSED_IN_ORDER = """
import gc, signal, sys
from pathlib import Path
from export.quantization.openvino import same_signal_stack
from export.runtime.openvino_session import OpenVinoSession
got = []
signal.signal(signal.SIGINT, lambda *_: got.append("handled"))
sessions = [OpenVinoSession(Path(sys.argv[1]), 1) for _ in range(3)]
while sessions:
    sessions.pop(0)
    gc.collect()
signal.raise_signal(signal.SIGINT)
import openvino
with same_signal_stack():  # as NNCF makes them
    cores = [openvino.Core() for _ in range(2)]
    for one in cores:
        one.get_property("CPU", "FULL_DEVICE_NAME")
    while cores:
        cores.pop(0)
        gc.collect()
    del one
signal.raise_signal(signal.SIGINT)
print(*got)
"""


def test_signals_arrive_whatever_was_closed_first(shown):
    """OpenVINO's plugins each take the signals' stack, and put back that of one freed before."""
    path = shown.scratch("openvino") / "model.xml"
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_IN_ORDER, path], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, ["handled", "handled"]), done.stderr


def test_a_process_has_one_openvino(shown):
    import ast

    root = Path(__file__).parents[3]
    made = [
        path.name
        for package in ("export", "bench", "finetune")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "Core"
    ]
    assert made == ["openvino_session.py"]
