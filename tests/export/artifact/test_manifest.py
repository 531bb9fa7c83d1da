"""manifest.json of every version: opened by the export and by the runtime, faults named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from older_documents import FIRST_MANIFEST, SPEECH_MANIFEST, TEXT_MANIFEST

from export.artifact.card import render_card
from export.artifact.folder import open_artifact
from export.runtime.manifest import ArtifactError, read_manifest
from export.tasks.text import TextCard
from finetune.core.errors import FolderError


def write_folder(folder: Path, content: dict[str, Any]) -> Path:
    """An artifact folder of nothing but its manifest."""
    (folder / "manifest.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return folder


@pytest.mark.parametrize("content", [TEXT_MANIFEST, SPEECH_MANIFEST, FIRST_MANIFEST])
def test_an_artifact_of_a_version_before_opens(tmp_path: Path, content: dict[str, Any]) -> None:
    artifact = open_artifact(write_folder(tmp_path, content), verify=False)
    assert artifact.labels == tuple(content["labels"]) and artifact.precisions == ("fp32", "int8")
    assert artifact.manifest.task == content.get("task", "text-classification")
    assert {"schema": content["schema"], **artifact.manifest.as_dict()} == content
    opened = read_manifest(tmp_path)
    assert opened.files["int8"].instruction_set == {"name": "avx2", "reduce_range": True}
    assert (opened.chunk_s, opened.task) == (content.get("chunk_s"), artifact.manifest.task)


def test_the_card_of_a_version_before_is_told_from_what_there_is(tmp_path: Path) -> None:
    manifest = open_artifact(write_folder(tmp_path, FIRST_MANIFEST), verify=False).manifest
    card = render_card(manifest, TextCard())
    assert "read as they come" in card and "warned" not in card


def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    files = {"fp32": {**TEXT_MANIFEST["files"]["fp32"], "humidity": 0.4}}
    folder = write_folder(tmp_path, {**TEXT_MANIFEST, "files": files, "tide": "high"})
    assert open_artifact(folder, verify=False).manifest.tide == "high"
    assert read_manifest(folder).files["fp32"].path == "onnx/model.onnx"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": "긍정"}, "labels is '긍정', allowed: a list of texts"),
        ({"labels": [0, 1]}, "labels is [0, 1], allowed: a list of texts"),
        ({"max_length": "32"}, "max_length is '32', allowed: a whole number or null"),
        ({"pad_token_id": True}, "pad_token_id is True, allowed: a whole number or null"),
        ({"status": "fine"}, "status is 'fine', allowed: passed, failed, building"),
        ({"files": {"fp32": "model.onnx"}}, "allowed: an object of files"),
        ({"files": {"fp32": {}}}, "files.fp32.path: None is no name of a file"),
        ({"files": {"fp32": {"path": 3}}}, "files.fp32.path: 3 is no name of a file"),
        ({"sha256": {"a": 1}}, "sha256 is {'a': 1}, allowed: an object of texts"),
        ({"preferred": ["int8"]}, "preferred is ['int8'], allowed: an object of texts"),
    ],
)
def test_the_runtime_names_file_key_and_value(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    folder = write_folder(tmp_path, {**TEXT_MANIFEST, **changes})
    with pytest.raises(ArtifactError) as fault:
        read_manifest(folder)
    assert f"{folder}/manifest.json" in str(fault.value) and told in str(fault.value)
    with pytest.raises(FolderError):
        open_artifact(folder)


def test_what_only_the_export_reads_is_named_too(tmp_path: Path) -> None:
    parent = {"run": "before"}
    folder = write_folder(tmp_path, {**TEXT_MANIFEST, "parent": parent, "base": "tiny"})
    with pytest.raises(FolderError, match=r"manifest\.json does not follow kotune") as fault:
        open_artifact(folder, verify=False)
    assert 'base: "tiny"' in str(fault.value)
    assert "parent -> run_sha256: nothing" in str(fault.value)
