"""Others open the artifact too: three packages alone, plain onnxruntime, Optimum's pipeline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from export.runtime.bundle import PACKAGES, bundle_runtime
from export.runtime.classifier import OnnxClassifier
from finetune.run_folder import open_run, read_rows

ROOT = Path(__file__).parents[3]
TEXT = "정말 최고 영화"
NO_INDEX = ("No matching distribution", "Could not find a version", "ConnectionError")


@pytest.fixture(scope="session")
def alone() -> Path:
    """The Python of an environment with three packages, of the tested versions, and no torch.

    Kept in .cache and made again when the versions change.
    """
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    pins = [re.search(rf"^{name}==.*$", constraints, re.M).group() for name in PACKAGES]
    key = hashlib.sha256(" ".join([sys.version, *pins]).encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / "clients" / f"venv-{key}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, clear=True, with_pip=False)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *pins],
            capture_output=True,
            text=True,
        )
        if done.returncode and any(words in done.stderr for words in NO_INDEX):
            pytest.skip(f"pip has no index here: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        (folder / "ready").touch()
    return python


def run_alone(python: Path, *arguments: object, stdin: str = "", path: str = "") -> str:
    """What a process of that environment prints, away from this repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-B", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd="/",
        env={**kept, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_predict_py_needs_three_packages(alone, make_artifact, kind):
    folder = make_artifact("lora", kind)
    (expected,) = OnnxClassifier(folder)(TEXT)
    label, score, text = run_alone(alone, folder / "predict.py", TEXT).strip().split("\t")
    assert (label, text) == (expected["label"], TEXT)
    assert float(score) == pytest.approx(expected["score"], abs=1e-4)
    lines = run_alone(alone, folder / "predict.py", "--json", stdin=f"{TEXT}\r\n최악\n")
    first, second = map(json.loads, lines.splitlines())
    assert first["text"] == TEXT and sum(first["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert second["text"] == "최악" and second["score"] == max(second["scores"].values())


@pytest.mark.parametrize(
    ("module", "where"), [("predict", "artifact"), ("export.runtime.classifier", "root")]
)
def test_the_classifier_needs_three_packages(alone, make_artifact, module, where):
    folder = make_artifact("lora", "roberta")
    code = (
        f"import sys, json; from {module} import OnnxClassifier;"
        "from importlib.util import find_spec;"
        "assert find_spec('torch') is None and find_spec('transformers') is None;"
        "print(json.dumps(OnnxClassifier(sys.argv[1])(sys.argv[2])))"
    )
    path = str(folder if where == "artifact" else ROOT)
    (answer,) = json.loads(run_alone(alone, "-c", code, folder, TEXT, path=path))
    (expected,) = OnnxClassifier(folder)(TEXT)
    assert answer["label"] == expected["label"]
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_wrong_input_of_predict_py_is_one_line(alone, make_artifact, tmp_path):
    program = make_artifact("lora", "roberta") / "predict.py"
    for arguments, message in [
        (("--provider", "cuda", "--precision", "fp32"), "no CUDAExecutionProvider"),
        (("--precision", "int3"), "no int3 file"),
        (("--folder", tmp_path), "is no artifact"),
    ]:
        done = subprocess.run(
            [alone, program, TEXT, *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_predict_py_is_the_runtime(make_artifact):
    text = (make_artifact("lora", "roberta") / "predict.py").read_text("utf-8")
    assert text == bundle_runtime()
    assert "\nfrom export" not in text and "\nfrom finetune" not in text


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_plain_onnxruntime_as_documented(alone, make_artifact, tmp_path, kind):
    document = (ROOT / "docs" / "DEPLOY.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(import json.*?)```", document, re.S)
    assert len(code.splitlines()) <= 28
    program = tmp_path / "plain.py"
    program.write_text(code, "utf-8")
    folder = make_artifact("lora", kind)
    label, score = run_alone(alone, program, folder, TEXT).split()
    (expected,) = OnnxClassifier(folder)(TEXT)
    assert label == expected["label"]
    assert float(score) == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("file", ["model.onnx", "model_quantized.onnx"])
def test_optimum_and_a_pipeline_give_the_same_labels(make_artifact, make_run, kind, file):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    folder = make_artifact("lora", kind)
    texts = read_rows(open_run(make_run("lora", kind)), "validation")["text"].tolist()[:32]
    model = ORTModelForSequenceClassification.from_pretrained(
        folder, subfolder="onnx", file_name=file
    )
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    theirs = [classify(text, truncation=True)[0] for text in texts]
    ours = OnnxClassifier(folder, "fp32" if file == "model.onnx" else "int8")
    for text, expected in zip(texts, theirs, strict=True):
        (answer,) = ours(text)
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
