"""The torch-free runtime: order, batches, precisions, refusals."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from export.runtime.classifier import OnnxClassifier, plan_batches, take_windows
from export.runtime.manifest import ArtifactError
from export.runtime.processor import InstructionSet
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows

OTHER = InstructionSet("other", reduce_range=True)


@pytest.fixture(scope="module")
def validation(make_run):
    run = open_run(make_run("lora", "roberta"))
    texts = read_rows(run, "validation")["text"].tolist()
    return texts, logits_of(read_predictions(run, "validation"))


def test_export_runtime_does_not_import_torch():
    code = (
        "import sys, export.runtime;"
        "print([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_fp32_answers_in_input_order_whatever_the_batch(make_artifact, validation, batch_tokens):
    texts, stored = validation
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32")
    logits = classifier.logits(texts, batch_tokens=batch_tokens)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, stored, atol=1e-4)
    backwards = classifier.logits(texts[::-1], batch_tokens=batch_tokens)
    np.testing.assert_allclose(backwards[::-1], logits, atol=1e-4)


def test_windows_keep_the_order(make_artifact, validation, monkeypatch):
    texts, stored = validation
    monkeypatch.setattr("export.runtime.classifier.WINDOW_TEXTS", 7)
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32")
    np.testing.assert_allclose(classifier.logits(texts), stored, atol=1e-4)


def test_an_iterator_is_answered_in_order_a_window_at_a_time(
    make_artifact, validation, monkeypatch
):
    monkeypatch.setattr("export.runtime.classifier.WINDOW_TEXTS", 5)
    texts, _ = validation
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32")
    taken = []

    def endless():
        for text in itertools.cycle(texts):
            taken.append(text)
            yield text

    answers = classifier(endless())
    first = [next(answers) for _ in range(7)]
    assert len(taken) == 10
    assert [one["label"] for one in first] == [one["label"] for one in classifier(texts[:7])]
    assert list(classifier(iter([]))) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(make_artifact, validation):
    import psutil

    texts, _ = validation
    process = psutil.Process()
    classifier = OnnxClassifier(make_artifact("lora", "roberta"))
    answers = classifier(itertools.islice(itertools.cycle(texts), 100_000))
    for _ in itertools.islice(answers, 20_000):
        pass
    before = process.memory_info().rss
    assert sum(1 for _ in answers) == 80_000
    assert process.memory_info().rss - before < 30e6


def test_a_window_ends_before_long_texts_fill_the_memory():
    texts = ["x" * 400] * 5 + ["y"] * 3
    windows = list(take_windows(iter(texts), count=4, characters=1000))
    assert [len(window) for window in windows] == [3, 4, 1]
    assert [text for window in windows for text in window] == texts


def test_bound_inputs_and_outputs_give_the_same(make_artifact, validation):
    """CUDA's way of running, on the CPU's memory: all but the device is the same code."""
    classifier = OnnxClassifier(make_artifact("lora", "bert"), "fp32")
    texts, _ = validation
    expected = classifier.logits(texts[:40])
    classifier._run = classifier._run_bound
    assert np.array_equal(classifier.logits(texts[:40]), expected)


@pytest.mark.gpu
def test_cuda_gives_the_same(make_artifact, validation):
    texts, stored = validation
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), provider="cuda")
    assert classifier.precision in ("fp16", "fp32")
    np.testing.assert_allclose(classifier.logits(texts), stored, atol=1e-2)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_int8_is_the_default_and_close(make_artifact, make_run, kind):
    folder = make_artifact("lora", kind)
    classifier = OnnxClassifier(folder)
    assert classifier.precision == "int8"
    texts = read_rows(open_run(make_run("lora", kind)), "validation")["text"].tolist()
    exact = OnnxClassifier(folder, "fp32").logits(texts)
    agree = classifier.logits(texts).argmax(axis=1) == exact.argmax(axis=1)
    assert agree.mean() > 0.9


def test_predictions_name_the_labels_of_the_folder(make_artifact):
    classifier = OnnxClassifier(make_artifact("lora", "roberta"), "fp32", threads=1)
    one, two = classifier(["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화"])
    assert (one["label"], two["label"]) == ("긍정", "부정")
    assert 0.5 < one["score"] <= 1
    assert classifier("최고 감동 명작 추천 영화")[0]["label"] == "긍정"  # a string is one text
    assert classifier([]) == []
    assert len(classifier(["", "a" * 5000])) == 2  # nothing, and more than max_length


def test_long_texts_are_cut_where_training_cut_them(make_artifact):
    folder = make_artifact("lora", "roberta")
    classifier = OnnxClassifier(folder, "fp32")
    words = ["최고"] * 200
    assert np.array_equal(
        classifier.logits([" ".join(words)]), classifier.logits([" ".join(words[:100])])
    )


def test_batches_cover_every_row_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 90, size=500).tolist()
    batches = list(plan_batches(lengths, 256))
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(len(rows) * max(lengths[row] for row in rows) <= 256 for rows in batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "no fp16 file.*fp32, int8"),
        ({"provider": "tpu"}, "'tpu' is unknown.*cpu, cuda"),
        ({"provider": "cuda", "precision": "int8"}, "runs on the CPU only"),
    ],
)
def test_what_cannot_be_served_is_refused(make_artifact, options, message):
    with pytest.raises(ArtifactError, match=message):
        OnnxClassifier(make_artifact("lora", "roberta"), **options)


def test_the_fastest_file_is_the_default_where_it_can_run(make_artifact, tmp_path, monkeypatch):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["preferred"] = {"cpu": "fp32"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert OnnxClassifier(folder).precision == "fp32"
    manifest["files"]["openvino-int8"] = {"path": "openvino/model.xml"}
    (folder / "openvino").mkdir()
    (folder / "openvino" / "model.xml").write_bytes(b"")  # never opened: openvino is not there
    manifest["sha256"]["openvino/model.xml"] = hashlib.sha256(b"").hexdigest()
    manifest["preferred"] = {"cpu": "openvino-int8"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr("export.runtime.manifest.find_spec", lambda name: None)
    with pytest.warns(RuntimeWarning, match="needs openvino; using int8"):
        assert OnnxClassifier(folder).precision == "int8"


def test_a_missing_provider_is_an_error(make_artifact, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ArtifactError, match="no CUDAExecutionProvider; pip install"):
        OnnxClassifier(make_artifact("lora", "roberta"), provider="cuda")


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model_quantized.onnx", "config.json"])
def test_a_changed_byte_is_refused(make_artifact, tmp_path, name):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was changed"):
        OnnxClassifier(folder)
    if name == "config.json":  # not read here, and so not looked at where only that is checked
        assert OnnxClassifier(folder, verify="read")("최고")


def test_another_processor_is_warned_of(make_artifact, monkeypatch):
    folder = make_artifact("lora", "roberta")
    monkeypatch.setattr("export.runtime.session.host_instruction_set", lambda: OTHER)
    with pytest.warns(RuntimeWarning, match="made for .*, this machine has other"):
        OnnxClassifier(folder, "int8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OnnxClassifier(folder, "fp32")


def test_a_failed_artifact_is_refused_unless_asked_for(make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "failed"}))
    with pytest.raises(ArtifactError, match="failed its export checks"):
        OnnxClassifier(folder)
    assert OnnxClassifier(folder, allow_failed=True)("최고")


@pytest.mark.parametrize("content", [None, "not json", '{"schema": "kotune.run/1"}', "[]"])
def test_a_folder_that_is_no_artifact_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        OnnxClassifier(tmp_path)
