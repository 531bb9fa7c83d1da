"""Several processes: the launcher, the same loss curve, and FSDP's configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from finetune.core.errors import RecipeError
from finetune.hardware.precision import CACHED_PRIMITIVES, bound_primitive_caches
from finetune.recipes.text import FinetuneRecipe
from finetune.training import finetune
from kotune import app

ROOT = Path(__file__).parents[3]
FSDP = ROOT / "configs" / "accelerate" / "fsdp.yaml"


def recipe_for(base: Path, reviews: Path, folder: Path) -> FinetuneRecipe:
    return FinetuneRecipe.model_validate(
        {
            "output": str(folder),
            "model": {"source": str(base), "max_length": 32, "dropout": 0.0},
            "data": {"path": str(reviews), "rows": 150, "test_size": 0.1},
            "adapter": {"method": "lora", "rank": 4},
            "training": {
                "device": "cpu",
                "precision": "fp32",
                "learning_rate": 5e-3,
                "epochs": 2,
                "batch_size": 8,
                "gradient_accumulation_steps": 2,
                "logging_steps": 1,
            },
        }
    )


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(make_base, reviews: Path, tmp_path: Path) -> None:
    base = make_base("roberta")
    one = finetune(recipe_for(base, reviews, tmp_path / "one"), report=lambda line: None)
    two = recipe_for(base, reviews, tmp_path / "two")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(two.model_dump(mode="json")), encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("finetune", "bench", "configs", "datasets"):  # a user's own, none of ours
        (elsewhere / f"{name}.py").write_text("raise SystemExit(0)", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "kotune", "finetune", "--launch", "2", path],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"run folder {two.folder}") == 1
    assert done.stdout.count("gradient_accumulation_steps: 2") == 1  # one recipe printed
    assert "2 processes" in done.stdout
    first, second = (
        json.loads((Path(run) / "metrics.json").read_text("utf-8")) for run in (one, two.folder)
    )
    assert len(first["history"]) == len(second["history"]) > 10
    for alone, shared in zip(first["history"], second["history"], strict=True):
        assert alone.keys() == shared.keys()
        assert shared == pytest.approx(alone, abs=2e-3)
    losses = [[row["loss"] for row in run["history"]] for run in (first, second)]
    assert losses[1] == pytest.approx(losses[0], abs=3e-4)
    assert max(losses[0]) - min(losses[0]) > 0.01  # the curve moves, so the comparison can fail
    for split in ("validation", "test"):
        assert first[split]["all"]["rows"] == second[split]["all"]["rows"]


def test_a_batch_that_does_not_divide_is_told_before_anything_starts(
    make_base, reviews: Path, tmp_path: Path
) -> None:
    content = recipe_for(make_base("roberta"), reviews, tmp_path / "run").model_dump(mode="json")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = CliRunner().invoke(app, ["finetune", "--launch", "3", str(path)])
    assert isinstance(result.exception, RecipeError)
    assert "training.batch_size=9" in str(result.exception)


def test_accelerate_understands_the_fsdp_configuration(monkeypatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(
        ["--config_file", str(FSDP), "-m", "finetune", "recipe.yaml"]
    )
    arguments, _, _ = _validate_launch_command(arguments)
    assert arguments.use_fsdp
    environment = prepare_multi_gpu_env(arguments)
    for name, value in environment.items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"


def test_primitive_caches_are_bounded_unless_the_environment_says_otherwise(monkeypatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    bound_primitive_caches()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    assert os.environ["LRU_CACHE_CAPACITY"] == str(CACHED_PRIMITIVES)
