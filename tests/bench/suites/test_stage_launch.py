"""The processes that train and export: exit codes come back, and the next job still runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from bench.suites import stage_launch
from bench.suites.stage_launch import StageProcess
from finetune.recipes.files import load_recipe
from finetune.recipes.text import FinetuneRecipe


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinetuneRecipe:
    monkeypatch.chdir(tmp_path)
    return load_recipe(FinetuneRecipe, "finetune/demo-lora", ["name=quick", "training.max_steps=1"])


@pytest.mark.parametrize("forked", [True, False], ids=["forked", "new interpreter"])
def test_exit_codes_come_back_and_the_next_job_runs(
    recipe: FinetuneRecipe, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    if forked and not stage_launch.can_fork():
        pytest.skip("this machine has an accelerator or cannot fork")
    monkeypatch.setattr(stage_launch, "can_fork", lambda: forked)
    wrong = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"source": None, "path": "nowhere"})}
    )
    with StageProcess() as process:
        assert process.run(wrong, None) == 2
        assert process.run(recipe, None) == 0
    assert Path("runs/quick/metrics.json").is_file()


def test_a_killed_job_gives_the_signal_and_leaves_the_server(recipe: FinetuneRecipe) -> None:
    if not stage_launch.can_fork():
        pytest.skip("this machine has an accelerator or cannot fork")
    long = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"max_steps": None, "epochs": 50})}
    )
    with StageProcess() as process:
        killer = threading.Thread(target=_kill_the_job, args=(process,))
        killer.start()
        assert process.run(long, None) == -signal.SIGKILL
        killer.join()
        assert process.run(recipe, None) == 0


def _kill_the_job(process: StageProcess) -> None:
    """Wait for the server's child, and kill it."""
    while process._server is None:
        time.sleep(0.01)
    children = Path(f"/proc/{process._server.pid}/task/{process._server.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    os.kill(int(found[0]), signal.SIGKILL)


@pytest.mark.slow
def test_a_server_that_died_is_an_exit_code_and_the_next_job_starts_another(
    recipe: FinetuneRecipe,
) -> None:
    with StageProcess() as process:
        assert process.run(recipe, None) == 0
        process._server.kill()
        process._server.wait()
        assert process.run(recipe, None) != 0
        assert process.run(recipe, None) == 0
