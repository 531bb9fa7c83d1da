"""An artifact's files answer as they did at the export, or it is told, with the likely cause."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from export.artifact.answers import spread_by_length, verify_answers
from export.artifact.folder import open_artifact
from export.artifact.push import plan_push
from export.exporting import export_run
from export.runtime.answers import AnswerCheck, KeptAnswers, compare_answers, read_answers
from finetune.core.errors import FolderError, GateError
from finetune.core.files import sha256_file
from kotune import app

NARROWEST = {  # ONNX Runtime has no switch for its kernels
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
TRAINED = """
import sys, numpy as np, torch
from export.predict import predict_texts
from export.runtime.classifier import softmax
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
run = open_run(sys.argv[1])
texts = read_rows(run, "validation")["text"].tolist()
stored = softmax(logits_of(read_predictions(run, "validation")))
now = [list(one.scores.values()) for one in predict_texts(sys.argv[1], texts)]
print(np.abs(np.array(now) - stored).max())
"""


@pytest.fixture
def copy(make_artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy"))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file in place, and have the manifest vouch for it."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["sha256"][name] = sha256_file(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def self_check(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, folder / "predict.py", "--self-check", *options],
        cwd=folder.parent, capture_output=True, text=True, env={**os.environ, **variables},
    )  # fmt: skip


def test_every_file_answers_as_at_the_export(make_artifact) -> None:
    artifact = open_artifact(make_artifact("lora", "roberta"))
    kept = read_answers(artifact.folder, artifact.manifest)
    assert len(kept.rows) == 32
    assert {len(one) for one in kept.logits.values()} == {32}
    lines = verify_answers(artifact)
    assert [line.split(":")[0] for line in lines] == list(artifact.manifest.files)
    assert all("32 answers as at the export" in line for line in lines)
    done = CliRunner().invoke(app, ["verify", str(artifact.folder), "--answers"])
    assert done.exit_code == 0, done.output


def test_predict_py_does_it_without_kotune(make_artifact) -> None:
    done = self_check(make_artifact("lora", "roberta"), "--precision", "int8", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("int8: 32 answers as at the export")


def test_another_answer_is_told_with_its_likely_cause(copy: Path, make_artifact) -> None:
    """Other weights under the same name: what a wrong kernel would be to the reader."""
    other = make_artifact("full", "roberta") / "onnx" / "model.onnx"
    replace_file(copy, "onnx/model.onnx", other.read_bytes())
    with pytest.raises(GateError, match="fp32: FAILED, largest logit difference") as fault:
        verify_answers(open_artifact(copy))
    assert "versions, instructions and variables are those of the export" in str(fault.value)
    rows = json.loads((copy / "answers" / "rows.json").read_text("utf-8"))
    rows["made"]["versions"]["onnxruntime"] = "1.2.3"
    rows["made"]["instructions"] = ["avx512_vnni"]
    replace_file(copy, "answers/rows.json", json.dumps(rows).encode())
    done = self_check(copy, ONEDNN_MAX_CPU_ISA="SSE41")
    assert done.returncode == 1
    assert "likely: onnxruntime 1.2.3 then" in done.stdout
    assert "likely: other instructions, whose int8 sums may saturate" in done.stdout
    assert "likely: ONEDNN_MAX_CPU_ISA is SSE41 here, was not set then" in done.stdout


def test_what_fails_to_run_is_a_failure_and_no_traceback(copy: Path) -> None:
    replace_file(copy, "onnx/model_quantized.onnx", b"no graph")
    done = self_check(copy)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "int8: FAILED, ArtifactError" in done.stdout
    assert "fp32: 32 answers as at the export" in done.stdout


def test_the_owner_may_leave_the_answers_out(copy: Path, tones_run, tmp_path: Path) -> None:
    shutil.rmtree(copy / "answers")
    artifact = open_artifact(copy)  # every other hash holds
    with pytest.raises(FolderError, match="keeps no answers to compare with"):
        verify_answers(artifact)
    assert self_check(copy).returncode == 2
    overrides = ["answers=0", "precisions=[fp32]"]
    made = export_run(tones_run, tmp_path / "none", overrides=overrides).folder
    assert not (made / "answers").exists()


def test_a_part_of_the_answers_missing_is_no_leaving_out(copy: Path) -> None:
    (copy / "answers" / "logits.safetensors").unlink()
    with pytest.raises(FolderError, match=r"logits\.safetensors is missing"):
        open_artifact(copy)


def test_they_are_sent_to_the_hub_only_where_asked(make_artifact) -> None:
    plain = plan_push(make_artifact("lora", "roberta"), "owner/name")
    assert not [name for name, _ in plain.files if name.startswith("answers/")]
    assert any("answers/ stays here" in line for line in plain.describe())
    whole = plan_push(make_artifact("lora", "roberta"), "owner/name", answers=True)
    assert {"answers/rows.json", "answers/logits.safetensors"} <= {name for name, _ in whole.files}


@pytest.mark.parametrize(
    ("shift", "failure"),
    [(0.0, None), (0.15, None), (0.25, "largest"), (np.nan, "largest")],
)
def test_allowed_is_what_the_export_measured(shift: float, failure: str | None) -> None:
    """int8 moved these logits by 0.2 at most when it was made."""
    exact = [np.array([[float(row), 0.0]]) for row in range(4)]
    then = [one + np.array([[0.2, 0.1]]) for one in exact]
    kept = KeptAnswers(["a"] * 4, {"fp32": exact, "int8": then}, {}, 1e-3)
    check = AnswerCheck("int8", rows=4)
    compare_answers(check, [one + np.array([[shift, 0.0]]) for one in then], then, kept)
    assert check.largest_allowed == pytest.approx(0.2)
    assert (check.failure or "").split(" ")[0] == (failure or "")


def test_rows_are_of_every_length() -> None:
    assert spread_by_length([5, 1, 9, 3, 7], 3) == [0, 1, 2]
    assert spread_by_length([5, 1], 32) == [0, 1]


def test_a_run_answers_alike_on_the_narrowest_processor(make_run) -> None:
    """Held against what training stored, on whatever this machine has."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINED, make_run("lora", "roberta")],
        capture_output=True, text=True, env={**os.environ, **NARROWEST},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) < 1e-4
