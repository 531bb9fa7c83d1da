"""A folder's seal: every byte of it counts, and its list of files leads nowhere else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.artifact.folder import open_artifact
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError
from finetune.core.errors import FolderError
from finetune.core.seal import name_fault, seal_fault, seal_files
from finetune.run_folder import open_run

TOLD = ("metrics.json", "data.json", "provenance.json", "recipe.yaml")


@pytest.fixture
def run(make_run: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_run("lora"), tmp_path / "run"))


@pytest.fixture
def artifact(make_artifact: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_artifact("lora"), tmp_path / "artifact"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("name", TOLD)
def test_what_tells_of_a_run_is_sealed(run: Path, name: str) -> None:
    with (run / name).open("a") as stream:
        stream.write(" ")
    with pytest.raises(FolderError, match=f"{name} was changed"):
        open_run(run)


def test_every_file_of_a_run_is_sealed(run: Path) -> None:
    listed = set(open_run(run).info.files)
    assert listed == set(seal_files(run)) - {"run.json"}
    assert any(name.startswith("tensorboard/") for name in listed)


def test_a_file_more_is_no_part_of_a_model(run: Path) -> None:
    (run / "model" / "added_tokens.json").write_text("{}")
    with pytest.raises(FolderError, match="stands without a hash"):
        open_run(run)


def test_a_run_of_before_opens(run: Path) -> None:
    def forget(info: dict[str, Any]) -> None:
        for name in TOLD[:3]:
            del info["files"][name]

    edit(run / "run.json", forget)
    open_run(run)


@pytest.mark.parametrize("wrong", [None, [], {}, {"../x": "0" * 64}, {"/etc/passwd": "0" * 64}])
def test_a_run_without_a_seal_is_refused(run: Path, wrong: Any) -> None:
    edit(run / "run.json", lambda info: info.update(files=wrong))
    with pytest.raises(FolderError):
        open_run(run)


@pytest.mark.parametrize("verify", [True, "read"])
@pytest.mark.parametrize("path", ["onnx/model.onnx", "tokenizer.json"])
def test_what_is_opened_is_in_the_seal(artifact: Path, path: str, verify: bool | str) -> None:
    edit(artifact / "manifest.json", lambda told: told["sha256"].pop(path))
    with pytest.raises(ArtifactError, match="stands without a hash"):
        OnnxClassifier(artifact, "fp32", verify=verify)


def test_no_seal_opens_nothing(artifact: Path) -> None:
    edit(artifact / "manifest.json", lambda told: told["sha256"].clear())
    with pytest.raises(ArtifactError, match="stands without a hash"):
        OnnxClassifier(artifact)
    with pytest.raises(FolderError, match="stands without a hash"):
        open_artifact(artifact)


@pytest.mark.parametrize(
    "path", ["../other.onnx", "/tmp/x.onnx", "onnx/../../x", "", None, 3, "a\\b"]
)
def test_a_manifest_leads_nowhere(artifact: Path, path: Any) -> None:
    edit(artifact / "manifest.json", lambda told: told["files"]["fp32"].update(path=path))
    for verify in (True, "read", False):
        with pytest.raises(ArtifactError, match="is no name of a file inside"):
            OnnxClassifier(artifact, "fp32", verify=verify)


def test_a_link_is_no_file_of_the_folder(artifact: Path, tmp_path: Path) -> None:
    shutil.move(artifact / "onnx" / "model.onnx", tmp_path / "model.onnx")
    os.symlink(tmp_path / "model.onnx", artifact / "onnx" / "model.onnx")
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        OnnxClassifier(artifact, "fp32")


def test_nothing_lies_beside_a_graph_unsealed(artifact: Path) -> None:
    (artifact / "onnx" / "weights.bin").write_bytes(b"0")
    with pytest.raises(ArtifactError, match="stands without a hash"):
        OnnxClassifier(artifact)


WRONG = [("labels", {}), ("files", []), ("sha256", None), ("max_length", "3"), ("name", 3)]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_manifest_of_other_kinds_is_told(artifact: Path, key: str, value: Any) -> None:
    edit(artifact / "manifest.json", lambda told: told.update({key: value}))
    with pytest.raises(ArtifactError, match=key):
        OnnxClassifier(artifact)


def test_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"1")
    assert name_fault(tmp_path, "a/b") is None
    for wrong in ("a//b", "a/", "./a", "C:/x", "a\0b", "..", [], 1):
        assert name_fault(tmp_path, wrong)
    hashes = seal_files(tmp_path)
    assert seal_fault(tmp_path, hashes) is None
    (tmp_path / "a" / "b").unlink()
    assert "missing" in str(seal_fault(tmp_path, hashes))
