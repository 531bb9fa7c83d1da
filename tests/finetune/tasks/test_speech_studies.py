"""Speech has what every task has: steps counted in optimizer steps, seeds, sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tones import tones_recipe

from finetune.core.files import read_json
from finetune.recipes.sections import SweepSection
from finetune.recipes.speech import SpeechRecipe
from finetune.studies.results import SCHEMA as SWEEP
from finetune.studies.seeds import SCHEMA as SEEDS
from finetune.studies.seeds import finetune_seeds, runs_of_seeds
from finetune.studies.sweep import run_sweep
from finetune.training import finetune


def content_of(tones_data: Path, output: Path, **training: Any) -> dict[str, Any]:
    content = tones_recipe(tones_data, output)
    content["data"] |= {"rows": 60, "validation_size": 12, "test_size": 8}
    content["training"] |= {"batch_seconds": 8, "eval_steps": None, **training}
    return content


def test_steps_are_optimizer_steps_and_every_epoch_is_evaluated(tones_data, tmp_path) -> None:
    two = {"gradient_accumulation_steps": 2}
    recipe = SpeechRecipe.model_validate(
        content_of(tones_data, tmp_path / "run", epochs=2, **two) | {"augment": {}}
    )
    folder = finetune(recipe, report=lambda line: None)
    history = json.loads((folder / "metrics.json").read_text("utf-8"))["history"]
    assert [round(row["epoch"]) for row in history if "eval_wer" in row] == [1, 2]
    short = SpeechRecipe.model_validate(
        content_of(tones_data, tmp_path / "short", max_steps=3, **two)
    )
    info = json.loads((finetune(short, report=lambda line: None) / "run.json").read_text())
    assert info["steps"] == len(info["step_times_s"]) == 3
    assert info["training"]["starts"] == 1


def test_seeds_are_summarised_by_word_error_rate(tones_data, tmp_path) -> None:
    content = content_of(tones_data, tmp_path / "run", max_steps=2) | {"seeds": [1, 2]}
    told: list[str] = []
    summary = finetune_seeds(SpeechRecipe.model_validate(content), report=told.append)
    document = read_json(summary / "seeds.json", SEEDS)
    assert document["summary"]["test"]["wer"]["mean"] >= 0
    assert [path.name for path in runs_of_seeds(summary)] == ["run-seed-1", "run-seed-2"]
    assert any("test WER over 2 seeds" in line for line in told)


def test_a_sweep_minimises_the_word_error_rate(tones_data, tmp_path) -> None:
    content = content_of(tones_data, tmp_path / "run", max_steps=2)
    section = SweepSection(
        parameters={"training.learning_rate": [1e-3, 5e-3]}, output=str(tmp_path / "sweep")
    )
    folder = run_sweep(content, section, report=lambda line: None)
    document = read_json(folder / "sweep.json", SWEEP)
    assert document["metric"] == "wer" and len(document["trials"]) == 2
    values = [one["value"] for one in document["trials"]]
    assert values == sorted(values)
    assert "task: speech-recognition" in (folder / "best.yaml").read_text("utf-8")
