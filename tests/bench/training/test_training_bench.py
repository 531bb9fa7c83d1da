"""Trainings and plans measured for real, on the tiny base: figures, ratios, pages, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.training.measure import worker_pool
from bench.training.plan_accuracy import run_plan_bench
from bench.training.suite import PlanSuite, TrainingSuite, case_recipe
from bench.training.training import run_training_bench
from finetune.core.errors import FolderError, GateError, RecipeError
from finetune.recipes.files import check_recipe, load_recipe, packaged_recipes

REPORT: Callable[[str], None] = lambda line: None  # noqa: E731


@pytest.fixture
def make_content(make_base, reviews: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function: changes → a suite's content on the tiny base and the made-up reviews."""

    def make(**changes: Any) -> dict[str, Any]:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"model: {{source: {make_base('roberta')}, max_length: 32}}\n"
            f"data: {{path: {reviews}, validation_size: 0.4, test_size: 0.1}}\n"
            "adapter: {rank: 4, alpha: 8}\n"
            "training: {device: cpu, batch_size: 8, eval_batch_size: 32}\n"
        )
        return {
            "name": "tiny",
            "output": str(tmp_path / "report"),
            "recipe": str(recipe),
            "threads": 1,
            "methods": [{"name": "lora", "set": {"adapter.method": "lora"}}],
            "ways": [{"name": "auto"}],
            **changes,
        }

    return make


def test_ways_are_measured_against_each_other(make_content, tmp_path: Path) -> None:
    longest = {"training.padding": "longest", "training.precision": "fp32"}
    content = make_content(
        ways=[{"name": "notes", "set": longest}, {"name": "ours"}],
        processes=1,
        rounds=2,
        steps=2,
        warmup_steps=1,
        matrix_peak_s=0.2,
        whole_runs_at_once=2,
    )
    suite = check_recipe(TrainingSuite, content, "suite")
    page = run_training_bench(suite, tmp_path, epochs=1, report=REPORT)
    results = json.loads((page.parent / "results.json").read_text())
    notes, ours = results["cases"]
    assert [case["status"] for case in results["cases"]] == ["ok", "ok"], results["cases"]
    assert notes["facts"]["rows"] == ours["facts"]["rows"]
    assert len(ours["visits"]) == 2 and ours["figures"]["rows_per_step"] == 8
    for case in (notes, ours):
        for visit in case["visits"]:
            assert visit["rows"] == 16 and len(visit["step_ms"]) == 2
            assert visit["tokens"] <= visit["places"]
            assert sum(visit["step_ms"]) <= 1001 * visit["seconds"]
    places = {visit["places"] for visit in notes["visits"]}
    assert places == {16 * notes["facts"]["longest_tokens"]}
    assert ours["figures"]["padding_share"] < notes["figures"]["padding_share"]
    assert notes["figures"]["against_ways"] == {}
    speeds = [case["figures"]["samples_per_s"]["value"] for case in (ours, notes)]
    ratio = ours["figures"]["against_ways"]["notes"]
    assert ratio["value"] == pytest.approx(speeds[0] / speeds[1])
    assert ours["figures"]["share_of_matrix_peak"] > 0
    for split, share in ours["figures"]["accuracy"].items():
        right = [case["whole_run"]["right"][split].count("1") for case in (ours, notes)]
        rows = len(ours["whole_run"]["right"][split])
        assert share["value"] == right[0] / rows and share["low"] <= share["value"]
        pair = ours["figures"]["accuracy_against_ways"]["notes"][split]
        assert pair["difference"] == pytest.approx((right[0] - right[1]) / rows)
    text = page.read_text()
    assert "| lora-ours | lora-notes |" in text and "share reached" in text
    assert "Trained to the end, 1 epoch," in text
    again = make_content(output=str(tmp_path))
    with pytest.raises(FolderError, match="in use"):
        run_training_bench(
            check_recipe(TrainingSuite, again, "suite"), tmp_path, epochs=None, report=REPORT
        )


@pytest.mark.slow
def test_whole_runs_alone(make_content, tmp_path: Path) -> None:
    suite = check_recipe(TrainingSuite, make_content(processes=0), "suite")
    with pytest.raises(RecipeError, match="nothing without --epochs"):
        run_training_bench(suite, tmp_path, epochs=None, report=REPORT)
    page = run_training_bench(suite, tmp_path, epochs=0.5, report=REPORT).read_text()
    assert "Trained to the end, 0.5 epochs" in page and "samples/s" not in page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whole_runs_end_with_the_command(
    make_content, tmp_path: Path, number: signal.Signals
) -> None:
    ways = [{"name": name, "set": {"training.max_steps": None}} for name in "abc"]
    suite = tmp_path / "suite.yaml"
    suite.write_text(json.dumps(make_content(processes=0, ways=ways)))
    command = [sys.executable, "-m", "kotune", "bench", "training", str(suite)]
    process = subprocess.Popen(
        [*command, "--epochs", "100000"],
        stderr=subprocess.DEVNULL,
        # a shell's background ignores Ctrl-C, and what it starts with it
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        while not (workers := psutil.Process(process.pid).children(recursive=True)):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_only_what_is_timed_goes_before_other_programs(make_content, tmp_path: Path) -> None:
    suite = check_recipe(TrainingSuite, make_content(), "suite")
    recipe = case_recipe(suite, suite.ways[0], suite.methods[0], tmp_path).model_dump(mode="json")
    with worker_pool(suite, 1) as start:
        for timed in (False, True):
            worker = start()
            worker.ask("prepare", recipe=recipe, timed=timed)
            nice = psutil.Process(worker.pid).nice()
            assert nice == os.getpriority(os.PRIO_PROCESS, 0) or (timed and nice < 0)


@pytest.mark.slow
def test_a_visit_lasts_its_seconds_and_methods_are_compared_once(
    make_content, tmp_path: Path
) -> None:
    methods = [{"name": name, "set": {"adapter.method": name}} for name in ("full", "lora")]
    content = make_content(
        methods=methods, processes=1, rounds=1, steps=1, visit_s=1.0, warmup_steps=1
    )
    page = run_training_bench(
        check_recipe(TrainingSuite, content, "suite"), tmp_path, epochs=None, report=REPORT
    )
    full, lora = json.loads((page.parent / "results.json").read_text())["cases"]
    for case in (full, lora):
        (visit,) = case["visits"]
        assert visit["seconds"] >= 1 and len(visit["step_ms"]) > 1
        assert sum(visit["step_ms"][:-1]) < 1000
    assert list(lora["figures"]["against_methods"]) == ["full"]
    assert full["figures"]["against_methods"] == {}
    assert "accuracy" not in lora["figures"]
    assert "1 optimizer steps and 1 s at least" in page.read_text()


def test_a_plan_is_held_against_the_process(make_content, tmp_path: Path) -> None:
    content = make_content(repeats=1, steps=2, tolerance=0.9)
    page = run_plan_bench(check_recipe(PlanSuite, content, "suite"), tmp_path, report=REPORT)
    (case,) = json.loads((page.parent / "results.json").read_text())["cases"]
    assert case["reason"] is None
    assert case["measured"][0]["training_bytes"] > case["planned"]["weights_bytes"]
    assert case["ratio"] == pytest.approx(
        case["planned"]["step_bytes"] / case["measured"][0]["training_bytes"]
    )
    assert "lora-auto" in page.read_text()


def test_a_case_that_fails_is_told_with_its_reason(make_content, tmp_path: Path) -> None:
    broken = {"adapter.target_modules": ["no_such_layer"]}
    content = make_content(repeats=1, ways=[{"name": "broken", "set": broken}])
    with pytest.raises(GateError, match="misses") as caught:
        run_plan_bench(check_recipe(PlanSuite, content, "suite"), tmp_path, report=REPORT)
    assert "target_modules" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ways": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"ways": []}, "ways"),
        ({"speed": 1}, "unknown key"),
    ],
)
def test_suites_are_checked(make_content, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check_recipe(TrainingSuite, make_content(**changes), "suite")


def test_a_way_scales_the_learning_rate_of_every_method(make_content, tmp_path: Path) -> None:
    methods = [
        {"name": "full", "set": {"adapter.method": "full", "training.learning_rate": 5e-5}},
        {"name": "lora", "set": {"adapter.method": "lora", "training.learning_rate": 4e-4}},
    ]
    ways = [{"name": "small"}, {"name": "large", "learning_rate_factor": 2.0}]
    suite = check_recipe(TrainingSuite, make_content(methods=methods, ways=ways), "suite")
    rates = [
        case_recipe(suite, way, method, tmp_path).training.learning_rate
        for way in suite.ways
        for method in suite.methods
    ]
    assert rates == [5e-5, 4e-4, 1e-4, 8e-4]


def test_the_suites_that_come_with_it_resolve() -> None:
    suites = [path for name, path in packaged_recipes().items() if name.startswith("bench/")]
    assert len(suites) >= 4
    for path in suites:
        kind = PlanSuite if "plan" in path.stem.split("-") else TrainingSuite
        suite = load_recipe(kind, str(path))
        names = {
            case_recipe(suite, way, method, path.parent).name
            for way in suite.ways
            for method in suite.methods
        }
        assert len(names) == len(suite.ways) * len(suite.methods)
