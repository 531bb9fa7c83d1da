"""``import kotune``: the library's functions do what the command line does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import kotune
from finetune.core.errors import RecipeError
from finetune.run_folder import open_run

TEXT = "최고 감동 명작 추천 영화"


def tiny_recipe(base: Path, reviews: Path, output: Path) -> dict[str, object]:
    return {
        "name": "library",
        "output": str(output),
        "model": {"source": str(base), "max_length": 32},
        "data": {"path": str(reviews), "test_size": 40},
        "training": {"max_steps": 3, "device": "cpu", "precision": "fp32"},
    }


def test_from_a_recipe_to_an_answer(
    make_base: Callable[[str], Path], reviews: Path, tmp_path: Path
) -> None:
    content = tiny_recipe(make_base("roberta"), reviews, tmp_path / "runs" / "library")
    lines: list[str] = []
    run = kotune.finetune(content, {"training.max_steps": 2, "name": "other"}, tell=lines.append)
    assert run.name == "other" and run.recipe.training.max_steps == 2
    assert any("parameters trained" in line for line in lines)
    limits = {"max_accuracy_drop": 1, "max_flipped_above_margin": 1, "max_unstable_labels": 1}
    artifact = kotune.export(run, tmp_path / "artifact", check_rows=20, **limits)
    assert artifact.folder == tmp_path / "artifact" and artifact.status == "passed"
    (answer,) = kotune.load(artifact, "fp32", threads=1)(TEXT)
    assert answer["label"] in artifact.labels
    report = kotune.benchmark(
        [run, artifact],
        tmp_path / "report",
        variants=["lora-onnx-fp32", "lora-onnx-int8"],
        processes=1,
        rounds=1,
        latency_rows=4,
        throughput_rows=0,
        warmup_s=0.1,
        target_half_width=None,
        noise_pair=False,
    )
    assert report.page.is_file() and report.folder == tmp_path / "report"
    names = {entry["name"] for entry in report.results["variants"]}
    assert names == {"lora-onnx-fp32", "lora-onnx-int8"}


def test_recipes_come_as_file_mapping_or_model(
    make_run: Callable[[str, str], Path], tmp_path: Path
) -> None:
    recipe = open_run(make_run("lora", "roberta")).recipe
    content = recipe.model_dump(mode="json")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    changes = {"output": str(recipe.folder), "seeds": [1, 2]}
    for given in (file, str(file), content, recipe):
        with pytest.raises(RecipeError, match="several runs"):  # refused once it was read
            kotune.finetune(given, changes)


def test_an_unknown_key_is_told_as_on_the_command_line(
    make_run: Callable[[str, str], Path],
) -> None:
    with pytest.raises(RecipeError, match="precision"):
        kotune.export(make_run("lora", "roberta"), precision=["int4"])
    with pytest.raises(RecipeError, match="rounds"):
        kotune.benchmark([make_run("lora", "roberta")], runds=3)


def test_importing_the_library_is_light() -> None:
    code = (
        "import kotune, json, sys; kotune.finetune, kotune.load; "
        "print(json.dumps([n for n in ('torch', 'transformers', 'onnxruntime', 'pydantic', "
        "'typer') if n in sys.modules]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == []
