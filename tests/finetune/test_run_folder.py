"""Run folders of every version open; what does not fit in one is named with its file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from older_documents import (
    FIRST_RUN,
    PROVENANCE,
    SPEECH_DATA,
    SPEECH_METRICS,
    SPEECH_RUN,
    TEXT_DATA,
    TEXT_METRICS,
    TEXT_RUN,
)
from tones import tones_recipe

from finetune.core.errors import FolderError
from finetune.core.preparation import FOLDED
from finetune.recipes.files import dump_recipe, write_yaml
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import open_run, read_data, read_metrics, read_provenance

CONTENT = {"name": "before", "data": {"source": "sample"}}
RECIPE = dump_recipe(FinetuneRecipe.model_validate(CONTENT))


def write_run(folder: Path, documents: dict[str, Any], recipe: str = RECIPE) -> Path:
    """A run folder without weights or rows, of the documents of some version."""
    folder.mkdir(exist_ok=True)
    for name, content in documents.items():
        text = json.dumps(content, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


def write_text_run(folder: Path, **changes: Any) -> Path:
    documents = {"data": TEXT_DATA, "metrics": TEXT_METRICS, "provenance": PROVENANCE}
    return write_run(folder, {"run": {**TEXT_RUN, **changes}, **documents})


def test_a_text_run_of_the_version_before_opens(tmp_path: Path) -> None:
    run = open_run(write_text_run(tmp_path / "run"), verify=False)
    assert (run.name, run.task, run.method) == ("before", "text-classification", "lora")
    assert run.info.signs[0].code == "unknown-tokens" and run.base.weights_sha256
    data, metrics = read_data(run), read_metrics(run)
    assert data.splits["test"].rows == 20 and data.seen_in_training("test") == 2
    assert [str(one) for one in data.dropped["train"].first][1] == "row 9 (line 12): label '2'"
    assert metrics.split("test")["accuracy"] == 0.5 and metrics.test.unseen["rows"] == 18
    assert read_provenance(run).hardware.memory_bytes == 8_000_000_000


def test_a_speech_run_of_the_version_before_opens(tmp_path: Path) -> None:
    documents = {"run": SPEECH_RUN, "data": SPEECH_DATA, "metrics": SPEECH_METRICS}
    recipe = write_yaml(tones_recipe(tmp_path, Path("before")))
    run = open_run(write_run(tmp_path / "run", documents, recipe), verify=False)
    assert run.is_speech and (run.info.chunk_s, run.info.stride_s) == (20, 2)
    assert read_metrics(run).split("test")["wer"] == 0.3333
    assert read_data(run).splits["train"].seconds == 8.1


def test_a_run_of_the_first_version_opens(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", {"run": FIRST_RUN}), verify=False)
    assert run.task == "text-classification" and run.info.signs == ()
    assert run.preparation == FOLDED  # what was done to texts before they were prepared


@pytest.mark.parametrize(
    ("name", "document"),
    [("run", TEXT_RUN), ("data", TEXT_DATA), ("metrics", TEXT_METRICS)],
)
def test_what_is_written_is_what_was_read(tmp_path: Path, name: str, document: Any) -> None:
    run = open_run(write_text_run(tmp_path / "run"), verify=False)
    record = {"run": run.info, "data": read_data(run), "metrics": read_metrics(run)}[name]
    assert {"schema": document["schema"], **record.as_dict()} == document


def test_keys_of_a_newer_version_are_kept(tmp_path: Path) -> None:
    run = open_run(write_text_run(tmp_path / "run", humidity=0.4), verify=False)
    assert run.info.as_dict()["humidity"] == 0.4


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"steps": "three"}, 'steps: "three"'),
        ({"parameters": {"total": 1}}, "parameters -> trainable: nothing"),
        ({"base": None}, "base: null"),
        ({"labels": "긍정"}, "labels: "),
        ({"files": {"model": 1}}, "files -> model: 1"),
    ],
)
def test_a_fault_names_file_key_and_value(
    tmp_path: Path, changes: dict[str, Any], received: str
) -> None:
    folder = write_text_run(tmp_path / "run", **changes)
    with pytest.raises(FolderError, match=r"run\.json does not follow kotune\.run/1") as fault:
        open_run(folder)
    assert received in str(fault.value.received) and fault.value.allowed


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    folder = write_text_run(tmp_path / "run", steps="three", name=3)
    with pytest.raises(FolderError) as fault:
        open_run(folder)
    assert "name: 3" in str(fault.value) and "steps:" in str(fault.value)
