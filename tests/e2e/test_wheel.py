"""The wheel carries recipes, assets and every module, and works from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("finetune", "export", "bench", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, so that no leftover of the checkout gets in."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    for name in tracked:
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.glob("*.whl"))


def _kotune(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kotune", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_holds_every_module_recipe_and_asset(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= held, sorted(wanted - held)
    assert not [name for name in held if name.startswith("tests/")]


def test_trains_and_predicts_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(installed)
    listed = _kotune(installed, folder, "ls")
    assert "finetune/demo-lora" in listed.stdout
    trained = _kotune(
        installed, folder, "finetune", "finetune/demo-lora", "training.max_steps=2", "data.rows=64"
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    answer = _kotune(installed, folder, "predict", "runs/demo-lora", "정말 재미있는 영화였어요")
    assert answer.returncode == 0, answer.stderr
    assert "긍정" in answer.stdout or "부정" in answer.stdout
