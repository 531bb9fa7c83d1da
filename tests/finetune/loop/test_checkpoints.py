"""Checkpoints on disk: whole ones are found, torn ones passed over, state survives unpickled."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune import training
from finetune.core.errors import FolderError, RecipeError
from finetune.core.files import sha256_file
from finetune.core.processes import divide_batch
from finetune.loop import checkpoints, work_folder
from finetune.loop.checkpoints import (
    begin_checkpoint,
    last_checkpoint,
    publish_checkpoint,
    read_state,
    write_state,
)
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import open_run


def make_checkpoint(root: Path, step: int) -> Path:
    folder = begin_checkpoint(root, step)
    (folder / "weights.safetensors").write_bytes(bytes(100) + bytes([step]))
    return publish_checkpoint(root, step, finished=False, ledger={"step": step})


def steps_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        make_checkpoint(tmp_path, step)
    assert steps_of(tmp_path) == ["checkpoint-10", "checkpoint-4"]
    assert last_checkpoint(tmp_path).ledger == {"step": 10}


@pytest.mark.parametrize("harm", ["a byte", "a file", "the manifest", "half a manifest"])
def test_a_torn_one_is_told_and_passed_over(tmp_path: Path, harm: str) -> None:
    make_checkpoint(tmp_path, 1)
    torn = make_checkpoint(tmp_path, 2)
    if harm == "a byte":
        (torn / "weights.safetensors").write_bytes(bytes(101))
    elif harm == "a file":
        (torn / "weights.safetensors").unlink()
    elif harm == "the manifest":
        (torn / checkpoints.MANIFEST).unlink()
    else:
        (torn / checkpoints.MANIFEST).write_text('{"schema": "kotune.checkpoint/1"}')
    lines: list[str] = []
    assert last_checkpoint(tmp_path, lines.append).step == 1
    assert len(lines) == 1
    assert "checkpoint-2 is not whole and is passed over" in lines[0]
    make_checkpoint(tmp_path, 2)
    assert last_checkpoint(tmp_path).step == 2


def test_what_was_being_written_is_no_checkpoint(tmp_path: Path) -> None:
    (begin_checkpoint(tmp_path, 3) / "weights.safetensors").write_bytes(b"half")
    assert last_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path, 4)
    assert steps_of(tmp_path) == ["checkpoint-4"]


def test_state_comes_back_with_its_types_and_bits(tmp_path: Path) -> None:
    random.seed(3)
    shared = torch.randn(3, dtype=torch.bfloat16)
    state = {
        "state": {0: {"exp_avg": torch.randn(4, 2).T, "step": torch.tensor(7.0)}, 1: {}},
        "groups": [{"lr": 1e-3 / 3, "betas": (0.9, 0.999), "params": [0, 1], "fused": True}],
        "python": random.getstate(),
        "numpy": np.random.default_rng(1).integers(0, 2**32, 5, dtype=np.uint32),
        "both": [shared, shared],
        "none": None,
        "empty": [torch.empty(0), torch.empty(0, dtype=torch.uint8)],
        "rate": np.float64(0.1),
    }
    write_state(tmp_path, "state", state)
    again = read_state(tmp_path, "state")
    assert torch.equal(again["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    assert again["state"][0]["step"].shape == ()
    assert again["state"][1] == {}
    assert again["groups"] == state["groups"]
    assert again["python"] == state["python"]
    assert again["numpy"].dtype == np.uint32
    assert again["numpy"].tolist() == state["numpy"].tolist()
    assert torch.equal(again["both"][1], shared)
    assert again["empty"][1].dtype == torch.uint8
    assert (again["none"], again["rate"]) == (None, 0.1)
    with pytest.raises(TypeError, match="set cannot be stored"):
        write_state(tmp_path, "state", {"what": {1, 2}})


def test_nothing_that_resumes_is_a_pickle(make_run, tmp_path: Path, monkeypatch) -> None:
    """A run cut off at its publication keeps its checkpoints: JSON and safetensors alone."""
    recipe = short(make_run, tmp_path)
    cut_at_publication(monkeypatch, recipe)
    files = [path for path in work_folder.work_root(tmp_path / "run").rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files if "tensorboard" not in path.parts}
    assert kinds == {".json", ".safetensors", ".yaml"}
    names = {path.name for path in files}
    assert {"weights.safetensors", "optimizer.safetensors", "process-0.safetensors"} <= names


@pytest.mark.parametrize("save_every_s", [0.0, 1e6])
def test_without_save_steps_the_clock_decides(
    make_run, tmp_path: Path, monkeypatch, save_every_s: float
) -> None:
    recipe = short(make_run, tmp_path, save_steps=None)  # the shared run is made before the patch
    saved: list[int] = []

    def publish(root: Path, step: int, **content) -> Path:
        saved.append(step)
        return publish_checkpoint(root, step, **content)

    monkeypatch.setattr("finetune.loop.interruption.SAVE_EVERY_S", save_every_s)
    monkeypatch.setattr("finetune.loop.resumable.publish_checkpoint", publish)
    training.finetune(recipe, report=lambda line: None)
    assert saved == ([1, 2, 3, 4] if save_every_s == 0 else [4])


def short(make_run, tmp_path: Path, **changes) -> FinetuneRecipe:
    recipe = open_run(make_run("lora", "roberta")).recipe
    fields = {"max_steps": 4, "save_steps": 2, **changes}
    section = recipe.training.model_copy(update=fields)
    return recipe.model_copy(update={"output": str(tmp_path / "run"), "training": section})


def cut_at_publication(monkeypatch, recipe: FinetuneRecipe) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "announce_publication", stop)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(recipe, report=lambda line: None)


def stop(*_) -> None:
    raise KeyboardInterrupt


def test_training_is_not_done_twice_and_another_recipe_starts_over(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    recipe = short(make_run, tmp_path)
    cut_at_publication(monkeypatch, recipe)
    lines: list[str] = []
    cut_at_publication(monkeypatch, short(make_run, tmp_path, weight_decay=0.5))
    other = short(make_run, tmp_path, weight_decay=0.25)
    training.finetune(other, report=lines.append)
    assert sum("training.weight_decay changed" in line for line in lines) == 2
    assert not any("going on" in line for line in lines)
    assert not work_folder.work_root(tmp_path / "run").exists()
    changed = sha256_file(tmp_path / "run" / "model" / "adapter_model.safetensors")

    cut_at_publication(monkeypatch, recipe.model_copy(update={"output": str(tmp_path / "again")}))
    monkeypatch.setattr("finetune.loop.resumable.ResumableTrainer.resume", stop)  # none may begin
    again = recipe.model_copy(update={"output": str(tmp_path / "again"), "name": "renamed"})
    run = open_run(training.finetune(again, report=lambda line: None))
    assert run.info.training.starts == 1
    assert sha256_file(run.folder / "model" / "adapter_model.safetensors") != changed


def test_cut_off_right_after_publication_it_is_finished(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    recipe = short(make_run, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training, "clear_work", stop)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(recipe, report=lambda line: None)
    before = sha256_file(tmp_path / "run" / "run.json")
    lines: list[str] = []
    assert training.finetune(recipe, report=lines.append) == tmp_path / "run"
    assert lines == [f"{tmp_path / 'run'} was finished already"]
    assert sha256_file(tmp_path / "run" / "run.json") == before
    with pytest.raises(FolderError, match="exists already"):
        training.finetune(recipe, report=lambda line: None)


def test_a_replaced_run_comes_back_where_its_replacement_was_cut_off(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    recipe = short(make_run, tmp_path)
    training.finetune(recipe, report=lambda line: None)
    before = sha256_file(tmp_path / "run" / "run.json")
    changed = short(make_run, tmp_path, weight_decay=0.5)
    cut_at_publication(monkeypatch, changed.model_copy(update={"output": str(tmp_path / "new")}))
    (work,) = work_folder.work_root(tmp_path / "new").iterdir()
    aside = work / ".new.old.x"
    aside.mkdir()
    (tmp_path / "run").rename(aside / "new")
    cut_at_publication(monkeypatch, changed.model_copy(update={"output": str(tmp_path / "new")}))
    assert sha256_file(tmp_path / "new" / "run.json") == before


def test_a_folder_that_refuses_is_told(make_run, tmp_path: Path) -> None:
    refusing = Path("/proc/self/runs/one")  # no user may make folders there, not even root
    if not refusing.parent.parent.is_dir():
        refusing = tmp_path / "file" / "one"
        (tmp_path / "file").write_text("no folder")
    recipe = short(make_run, tmp_path).model_copy(update={"output": str(refusing)})
    with pytest.raises(FolderError, match="cannot be written"):
        training.finetune(recipe, report=lambda line: None)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    assert divide_batch(16, 2) == 8
    with pytest.raises(RecipeError, match=r"(?s)received: 16 rows, 3.*batch_size=18"):
        divide_batch(16, 3)
