"""Suites: recipes resolved, stages that are done stay done, an interruption costs one stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from architectures import write_architecture
from tones import tones_recipe

from bench.cli import load_suite, split_arguments
from bench.settings import BenchSection, folder_settings
from bench.suites import stages
from bench.suites.recipe import SuiteRecipe, resolve_recipes, wanted_exports
from bench.suites.stage_process import run_stages
from bench.suites.suite import run_suite
from bench.tasks.registry import task_of_folders
from bench.variants.contenders import find_contenders
from finetune.core.errors import FolderError, GateError, RecipeError
from finetune.recipes.files import packaged_recipes
from finetune.recipes.text import FinetuneRecipe

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_suite(place: Path, make_base, reviews: Path):
    """A function: changes → the path of a quick suite of one LoRA recipe."""

    def write(**changes: Any) -> Path:
        recipe = {
            "name": "quick",
            "model": {"source": str(make_base("roberta")), "max_length": 32},
            "data": {"path": str(reviews), "validation_size": 0.4, "test_size": 0.1},
            "adapter": {"method": "lora", "rank": 4},
            "training": {"max_steps": 2, "batch_size": 8, "device": "cpu", "precision": "fp32"},
            "export": {"max_accuracy_drop": 0.5},
        }
        (place / "quick.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        suite = {
            "name": "quick",
            "recipes": [{"recipe": "quick.yaml"}],
            "bench": {
                "processes": 1,
                "rounds": 1,
                "latency_rows": 4,
                "throughput_rows": 0,
                "warmup_s": 0.2,
                "threads": 1,
                "noise_pair": False,
                "target_half_width": None,
                "variants": ["lora-onnx-fp32", "lora-onnx-int8"],
                "baseline": "lora-onnx-fp32",
            },
            **changes,
        }
        path = place / "suite.yaml"
        path.write_text(yaml.safe_dump(suite), encoding="utf-8")
        return path

    return write


def go(path: Path, overrides: list[str] | None = None, **options: Any) -> list[str]:
    """Run a suite in this process; what it told."""
    suite, beside = load_suite(str(path), overrides or [])
    lines: list[str] = []
    run_suite(suite, beside=beside, report=lines.append, **options)
    return lines


def test_a_suite_runs_once_and_only_what_changed_runs_again(write_suite, place: Path) -> None:
    path = write_suite()
    first = go(path)
    assert "1/1 quick train and export" in first
    assert (place / "reports/quick/report.html").is_file()
    assert (place / "artifacts/quick/manifest.json").is_file()
    run = (place / "runs/quick/run.json").read_bytes()

    second = go(path)
    assert len(second) == 2
    assert all("not run again" in line for line in second)

    third = go(path, ["bench.rounds=2"])
    assert any("not run again" in line for line in third)
    assert "bench" in third

    fourth = go(path, ["common.export.check_rows=50"])
    assert "1/1 quick done before; export" in fourth
    assert (place / "runs/quick/run.json").read_bytes() == run
    manifest = json.loads((place / "artifacts/quick/manifest.json").read_text("utf-8"))
    assert manifest["settings"]["check_rows"] == 50

    fifth = go(path, ["common.training.max_steps=1"])
    assert "1/1 quick train and export" in fifth
    assert json.loads((place / "runs/quick/run.json").read_text("utf-8"))["steps"] == 1

    run = (place / "runs/quick/run.json").read_bytes()
    assert "1/1 quick train and export" in go(path, ["common.training.max_steps=1"], fresh=True)
    assert (place / "runs/quick/run.json").read_bytes() != run


@pytest.mark.slow
def test_a_killed_suite_goes_on_where_it_stopped(write_suite, place: Path) -> None:
    """Killed as soon as the run is recorded: the export is made later, the run is not again."""
    path = write_suite()
    record = stages.record_path("finetune", place / "runs" / "quick")
    command = [sys.executable, str(ROOT / "kotune.py"), "run", str(path)]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
    while not record.exists():
        assert process.poll() is None, "the suite ended before it was killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = (place / "runs/quick/run.json").read_bytes()
    _wait_for_quiet(place)
    lines = go(path)
    assert any(line.startswith("1/1 quick") and "train" not in line for line in lines)
    assert (place / "runs/quick/run.json").read_bytes() == run
    assert (place / "reports/quick/report.html").is_file()
    assert not list((place / "artifacts").glob(".quick.build.*"))


def test_a_run_made_by_hand_is_taken_over_and_another_is_not_replaced(
    write_suite, place: Path
) -> None:
    path = write_suite(export=False, bench={"variants": ["tfidf-sklearn-fp64"], "rounds": 1})
    suite, beside = load_suite(str(path), [])
    (recipe,) = resolve_recipes(suite, beside)
    from finetune.training import finetune

    finetune(recipe, report=lambda line: None)
    key = stages.finetune_key(recipe)
    assert stages.adopt_run(recipe, key).key == key
    stages.record_path("finetune", place / "runs" / "quick").unlink()
    with pytest.raises(FolderError, match="holds another run"):
        go(path, ["common.seed=1"])


def test_seeds_of_a_suite_leave_their_summary(write_suite, place: Path) -> None:
    """``kotune bench runs/NAME`` stands for the runs of all seeds, as after ``kotune finetune``."""
    path = write_suite(common={"seeds": [1, 2], "data.seed": 3}, export=False)
    bench = ["bench.variants=[quick-seed-1-pytorch-fp32]", "bench.baseline=null"]
    go(path, bench)
    summary = place / "runs/quick/seeds.json"
    told = json.loads(summary.read_text("utf-8"))
    assert [one["run"] for one in told["seeds"]] == ["quick-seed-1", "quick-seed-2"]
    found = find_contenders([Path("runs/quick")])
    assert [one.name for one in found] == ["quick-seed-1", "quick-seed-2"]
    assert task_of_folders([Path("runs/quick")]).name == "text-classification"
    stamp = summary.stat().st_mtime_ns
    assert all("not run again" in line for line in go(path, bench))
    assert summary.stat().st_mtime_ns == stamp
    summary.unlink()
    go(path, bench)
    assert json.loads(summary.read_text("utf-8")) == told
    summary.write_text("{}")
    (place / "runs/quick/other").write_text("")
    summary.unlink()
    with pytest.raises(FolderError, match="not a summary of seeds"):
        go(path, bench)


def test_a_speech_suite_goes_from_recipe_to_report(place: Path, tones_data: Path) -> None:
    recipe = tones_recipe(tones_data, place / "runs" / "tones")
    recipe["output"] = "runs/{name}"
    recipe["training"] |= {"max_steps": 4, "eval_steps": 4}
    recipe["export"] |= {"max_wer_increase": 1.0, "max_logit_difference": 10}
    (place / "tones.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    suite = {
        "name": "tones",
        "recipes": ["tones.yaml"],
        "bench": {
            "processes": 1,
            "rounds": 1,
            "calls": 1,
            "lengths_s": [1],
            "warmup_s": 0.1,
            "threads": 1,
            "noise_pair": False,
            "target_half_width": None,
            "variants": ["full-onnx-fp32", "full-onnx-int8"],
        },
    }
    path = place / "suite.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    first = go(path)
    assert "1/1 tones train and export" in first
    results = json.loads((place / "reports/tones/results.json").read_text("utf-8"))
    assert results["task"] == "speech-recognition"
    assert [one["status"] for one in results["variants"]] == ["ok", "ok"]
    assert all("not run again" in line for line in go(path))
    stages.record_path("finetune", place / "runs" / "tones").unlink()
    assert all("not run again" in line for line in go(path))  # the run is taken over
    with pytest.raises(RecipeError, match="latency_rows"):
        load_suite(str(path), ["bench.latency_rows=5"])


def test_one_suite_has_one_task(write_suite, place: Path, tones_data: Path) -> None:
    path = write_suite(recipes=["quick.yaml", "tones.yaml"])
    recipe = tones_recipe(tones_data, place / "runs" / "tones")
    (place / "tones.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    suite, beside = load_suite(str(path), [])
    with pytest.raises(RecipeError, match="one suite for each task"):
        resolve_recipes(suite, beside)


def test_changed_data_and_outputs_are_noticed(write_suite, place: Path) -> None:
    suite, beside = load_suite(str(write_suite()), [])
    (recipe,) = resolve_recipes(suite, beside)
    corpus = place / "reviews.csv"
    corpus.write_bytes(Path(recipe.data.path).read_bytes())
    moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(corpus)})})
    before = stages.finetune_key(moved)
    corpus.write_text(corpus.read_text("utf-8") + "좋아요,1\n", encoding="utf-8")
    assert stages.finetune_key(moved) != before

    target = place / "runs" / "other"
    target.mkdir(parents=True)
    (target / "run.json").write_text("{}")
    stages.finish("finetune", "key", target, target, 1.0)
    assert stages.read_record("finetune", target).key == "key"
    (target / "run.json").write_text('{"changed": 1}')
    assert stages.read_record("finetune", target) is None


def test_export_settings_are_no_part_of_the_trainings_key(write_suite) -> None:
    suite, beside = load_suite(str(write_suite()), ["common.export.check_rows=7"])
    plain, _ = load_suite(str(write_suite()), [])
    (changed,), (recipe,) = resolve_recipes(suite, beside), resolve_recipes(plain, beside)
    assert changed.export.check_rows == 7
    assert stages.finetune_key(changed) == stages.finetune_key(recipe)


def test_a_crossed_gate_still_gives_a_report_and_exit_code_1(write_suite, place: Path) -> None:
    path = write_suite()
    overrides = ["common.export.max_logit_difference=1e-30"]
    with pytest.raises(GateError, match="the report is"):
        go(path, overrides)
    results = json.loads((place / "reports/quick/results.json").read_text("utf-8"))
    assert all("FAILED" in one["description"] for one in results["variants"])
    with pytest.raises(GateError):  # done before, and still a failure
        go(path, overrides)


def test_changes_reach_the_recipes(write_suite) -> None:
    suite, beside = load_suite(
        str(write_suite(common={"training.epochs": 2, "data": {"rows": 60}})),
        ["common.training.epochs=5", "bench.rounds=7"],
    )
    (recipe,) = resolve_recipes(suite, beside)
    assert (recipe.training.epochs, recipe.data.rows, suite.bench.rounds) == (5, 60, 7)


def test_faults_of_a_suite_are_told_together(write_suite) -> None:
    path = write_suite(bench={"round": 3, "processes": 0}, recipe=[])
    with pytest.raises(RecipeError) as told:
        load_suite(str(path), [])
    text = str(told.value)
    assert "3 faults" in text
    assert "did you mean `rounds`?" in text
    assert "did you mean `recipes`?" in text


def test_two_recipes_may_not_share_a_run_folder(write_suite) -> None:
    twice = [{"recipe": "quick.yaml"}, {"recipe": "quick.yaml"}]
    suite, beside = load_suite(str(write_suite(recipes=twice)), [])
    with pytest.raises(RecipeError, match="same run folder"):
        resolve_recipes(suite, beside)
    twice[1]["set"] = {"name": "other"}
    suite, beside = load_suite(str(write_suite(recipes=twice, export=["other"])), [])
    recipes = resolve_recipes(suite, beside)
    assert wanted_exports(suite, recipes) == ["other"]
    suite, beside = load_suite(str(write_suite(export=["nobody"])), [])
    with pytest.raises(RecipeError, match="names no run"):
        resolve_recipes(suite, beside)


def test_a_recipe_is_not_a_suite() -> None:
    with pytest.raises(RecipeError, match="kotune finetune"):
        load_suite("finetune/demo-lora", [])


@pytest.mark.parametrize(
    "name", [name for name in packaged_recipes() if name.startswith("suites/")]
)
def test_every_suite_that_comes_with_kotune_is_sound(name: str) -> None:
    suite, beside = load_suite(name, [])
    assert isinstance(suite, SuiteRecipe)
    assert resolve_recipes(suite, beside)
    first, second = packaged_recipes()[name].read_text("utf-8").splitlines()[:2]
    assert first == f"# kotune run configs/{name}.yaml"
    assert second.startswith("# ")


def test_folders_and_settings_of_the_bench_command() -> None:
    assert split_arguments(["runs/a", "rounds=2", "artifacts/b"]) == (
        ["runs/a", "artifacts/b"],
        ["rounds=2"],
    )
    section = folder_settings(["rounds=2", "bench.variants=[a, b]"], BenchSection)
    assert (section.rounds, section.variants) == (2, ["a", "b"])
    with pytest.raises(RecipeError, match="nothing to benchmark"):
        split_arguments(["rounds=2"])


def _wait_for_quiet(place: Path) -> None:
    """Until the orphaned stage process has cleaned up and gone."""
    deadline = time.monotonic() + 60
    while list(place.glob("artifacts/.quick.build.*")) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_a_suite_refuses_before_training_what_it_could_not_export(
    place, make_base, reviews
) -> None:
    """A recipe without an export section is trained where the suite exports nothing of it."""
    recipe = {
        "name": "funnel",
        "model": {
            "source": str(write_architecture("funnel", place / "funnel", make_base("roberta"))),
            "max_length": 32,
        },
        "data": {"path": str(reviews), "validation_size": 0.4, "test_size": 0.1},
        "training": {"max_steps": 1, "batch_size": 8, "device": "cpu", "precision": "fp32"},
    }
    with pytest.raises(RecipeError, match="could not be exported"):
        run_stages({"recipe": recipe, "artifact": str(place / "artifact")})
    assert not (place / "runs").exists()
    checked = FinetuneRecipe.model_validate(recipe)
    job = {"recipe": checked.model_dump(mode="json", exclude_unset=True), "artifact": None}
    run_stages(job)
    assert (place / "runs/funnel/run.json").is_file()
