"""Every backend keeps its interface's promises under threads, after a fork, and in spawned ones."""

from __future__ import annotations

import copy
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tones import sing

from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError
from export.runtime.transcriber import OnnxTranscriber
from finetune.run_folder import open_run, read_rows

CALLS, THREADS = 10_000, 8
BACKENDS = ("fp32", "openvino-fp32")
FORKED = """
import os, sys, time
import numpy as np
from export.runtime.classifier import OnnxClassifier
classifier = OnnxClassifier(sys.argv[1], sys.argv[2], threads=4, verify=False)
texts = sys.argv[3:]
before = classifier.logits(texts)
child = os.fork()
if not child:
    np.testing.assert_allclose(classifier.logits(texts), before, atol=1e-5)
    sys.exit(7)  # as a server's worker ends, everything it holds being freed
deadline = time.monotonic() + 60
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
    time.sleep(0.05)
if not ended[0]:
    os.kill(child, 9)
    sys.exit("the forked process hangs")
np.testing.assert_allclose(classifier.logits(texts), before, atol=1e-5)
sys.exit(os.waitstatus_to_exitcode(ended[1]))
"""


def with_openvino(artifact: Path, target: Path) -> Path:
    """A copy of the artifact with an OpenVINO file beside."""
    pytest.importorskip("openvino", reason="an extra: pip install 'kotune[openvino]'")
    from export.quantization.openvino import convert_to_openvino

    folder = shutil.copytree(artifact, target)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    path = "openvino/openvino_model.xml"
    convert_to_openvino(folder / "onnx/model.onnx", folder / path, precision="fp32")
    manifest["files"]["openvino-fp32"] = {"path": path, "runtime": "openvino"}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def text_folder(make_artifact, tmp_path_factory) -> Path:
    return with_openvino(
        make_artifact("lora", "roberta"), tmp_path_factory.mktemp("threads") / "text"
    )


@pytest.fixture(scope="module")
def speech_folder_of_tones(tones_artifact, tmp_path_factory) -> Path:
    return with_openvino(tones_artifact, tmp_path_factory.mktemp("threads") / "speech")


@pytest.fixture(scope="module")
def texts(make_run) -> list[str]:
    rows = read_rows(open_run(make_run("lora", "roberta")), "validation")
    return rows["text"].drop_duplicates().tolist()[:60]


def call_together(call: Callable[[int], Any], right: Callable[[int, Any], bool], rows: int) -> None:
    """CALLS calls of random rows from THREADS threads: none may raise or get another's answer."""

    def work(seed: int) -> int:
        drawn = np.random.default_rng(seed).integers(rows, size=CALLS // THREADS).tolist()
        return sum(not right(row, call(row)) for row in drawn)

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0


def far_apart(answers: list[np.ndarray], tolerance: float) -> bool:
    """Whether no answer could be taken for another one."""
    return all(
        one.shape != two.shape or np.abs(one - two).max() > 10 * tolerance
        for place, one in enumerate(answers)
        for two in answers[:place]
    )


@pytest.mark.parametrize("precision", BACKENDS)
def test_threads_get_their_own_texts_answers(text_folder, texts, precision):
    classifier = OnnxClassifier(text_folder, precision, threads=1, verify=False)
    alone = [classifier.logits([text])[0] for text in texts]
    assert far_apart(alone, 1e-4)

    def call(row: int) -> np.ndarray:
        if row % 10:
            return classifier.logits([texts[row]])[0]
        return next(classifier.stream_logits(iter([texts[row], texts[row - 1]])))[0]

    def right(row: int, found: np.ndarray) -> bool:
        return np.abs(found - alone[row]).max() < 1e-4

    call_together(call, right, len(texts))


@pytest.mark.parametrize("precision", BACKENDS)
def test_threads_get_their_own_recordings_answers(speech_folder_of_tones, tmp_path, precision):
    """Logits of waves; every twentieth recording from its file: read, resampled, decoded."""
    transcriber = OnnxTranscriber(speech_folder_of_tones, precision, threads=1, verify=False)
    waves = [sing("ABCD"[row % 4], 16_000, seed=row)[: 800 + 20 * row] for row in range(40)]
    for row in range(0, 40, 20):
        soundfile.write(tmp_path / f"{row}.wav", sing("AB" if row else "CD", 44_100), 44_100)
    alone = [transcriber.logits([wave])[0] for wave in waves]
    heard = {row: transcriber(tmp_path / f"{row}.wav") for row in range(0, 40, 20)}
    assert far_apart(alone, 1e-3) and len(set(heard.values())) == 2

    def call(row: int) -> Any:
        if row % 20:
            return transcriber.logits([waves[row]])[0]
        return transcriber(tmp_path / f"{row}.wav")

    def right(row: int, found: Any) -> bool:
        if row in heard:
            return found == heard[row]
        return found.shape == alone[row].shape and np.abs(found - alone[row]).max() < 1e-3

    call_together(call, right, len(waves))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("precision", BACKENDS)
def test_a_forked_process_answers_and_ends(text_folder, texts, precision):
    """Freed in the child, ONNX Runtime's pool of threads crashes and OpenVINO's waits for ever."""
    command = [sys.executable, "-c", FORKED, text_folder, precision, *texts[:40]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_process_takes_no_other_file(text_folder, texts, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "copy")
    code = FORKED.replace("if not child:", "if not child:\n    os.utime(sys.argv[4], (1, 1))")
    command = [sys.executable, "-c", code, folder, "fp32", texts[0], folder / "onnx/model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "has changed since it was opened" in done.stderr


def test_a_spawned_process_opens_the_folder_again(text_folder, texts):
    classifier = OnnxClassifier(text_folder, "fp32", threads=1, verify="read")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(classifier.logits, texts).result(timeout=120)
    np.testing.assert_allclose(found, classifier.logits(texts), atol=1e-5)


def test_another_artifact_is_not_taken_for_the_pickled_one(make_artifact, texts, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    classifier = OnnxClassifier(folder, "fp32", threads=1)
    again = copy.copy(classifier)  # by the same protocol as pickle
    assert np.array_equal(again.logits(texts), classifier.logits(texts))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": "another"}))
    with pytest.raises(ArtifactError, match="no longer the artifact"):
        copy.copy(classifier)
