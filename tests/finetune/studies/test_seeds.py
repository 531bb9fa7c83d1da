"""One run per seed, each an ordinary run folder; the summary over them."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.suites.recipe import SuiteRecipe, resolve_recipes
from bench.variants.contenders import find_contenders
from finetune.core.errors import FolderError
from finetune.core.files import read_json
from finetune.recipes.files import dump_recipe
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import open_run, read_metrics
from finetune.studies.seeds import SCHEMA, finetune_seeds, runs_of_seeds, seed_recipes

SEEDS = [1, 2, 3]


def recipe_of(base: Path, reviews: Path, folder: Path, **more) -> FinetuneRecipe:
    return FinetuneRecipe.model_validate(
        {
            "name": "tiny",
            "output": str(folder / "{name}"),
            "seeds": SEEDS,
            "model": {"source": str(base), "max_length": 24},
            "data": {"path": str(reviews), "validation_size": 0.2, "test_size": 0.2},
            "adapter": {"method": "lora", "rank": 4, "alpha": 8},
            "training": {
                "max_steps": 6,
                "batch_size": 16,
                "learning_rate": 1e-2,
                "device": "cpu",
                "precision": "fp32",
            },
            **more,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_base, reviews) -> tuple[FinetuneRecipe, Path, list[str]]:
    """The recipe, its summary's folder, and what was told; the second seed stood there before."""
    from finetune.training import finetune

    recipe = recipe_of(make_base("roberta"), reviews, tmp_path_factory.mktemp("seeds"))
    finetune(seed_recipes(recipe)[1], report=lambda line: None)
    told: list[str] = []
    return recipe, finetune_seeds(recipe, report=told.append), told


def test_each_seed_is_an_ordinary_run(trained) -> None:
    _, summary, _ = trained
    folders = runs_of_seeds(summary)
    assert [folder.name for folder in folders] == [f"tiny-seed-{seed}" for seed in SEEDS]
    runs = [open_run(folder) for folder in folders]
    assert [run.recipe.seed for run in runs] == SEEDS
    assert all(run.name == run.folder.name and run.recipe.seeds is None for run in runs)
    assert len({run.info.data_fingerprint for run in runs}) == len(SEEDS)
    assert [one.name for one in find_contenders([summary])] == [run.name for run in runs]


def test_the_summary_holds_mean_deviation_and_interval(trained) -> None:
    _, summary, told = trained
    content = read_json(summary / "seeds.json", SCHEMA)
    accuracies = [
        read_metrics(open_run(folder)).split("test")["accuracy"]
        for folder in runs_of_seeds(summary)
    ]
    figures = content["summary"]["test"]["accuracy"]
    assert figures["mean"] == pytest.approx(statistics.mean(accuracies))
    assert figures["deviation"] == pytest.approx(statistics.stdev(accuracies))
    assert figures["range"] == [min(accuracies), max(accuracies)]
    if figures["deviation"] > 0:
        mean, (low, high) = figures["mean"], figures["interval"]
        reach = 4.302652730 * figures["deviation"] / math.sqrt(3)  # t table, two degrees
        for end, sign in ((low, -1), (high, 1)):
            odds = mean / (1 - mean) * math.exp(sign * reach / (mean * (1 - mean)))
            assert end == pytest.approx(odds / (1 + odds))
    table = told[-8:-2]
    assert [line.split()[0] for line in table] == ["seed", "1", "2", "3", "mean", "deviation"]
    assert f"{accuracies[0]:.2%}" in "\n".join(told)


def test_finished_seeds_are_not_run_again(trained) -> None:
    recipe, summary, told = trained
    assert [line for line in told if "finished before" in line] == [
        f"seed 2 (2 of 3) finished before in {recipe.folder}-seed-2; not run again"
    ]
    times = [os.stat(folder / "run.json").st_mtime_ns for folder in runs_of_seeds(summary)]
    again: list[str] = []
    finetune_seeds(recipe, report=again.append)
    assert sum("finished before" in line for line in again) == 3
    assert times == [os.stat(folder / "run.json").st_mtime_ns for folder in runs_of_seeds(summary)]


def test_a_seed_of_another_recipe_is_not_taken_for_ours(trained) -> None:
    recipe, _, _ = trained
    training = recipe.training.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(FolderError, match=r"another recipe(.|\n)*differs in training"):
        finetune_seeds(recipe.model_copy(update={"training": training}))


def test_a_folder_of_something_else_is_refused(trained, tmp_path: Path) -> None:
    recipe, summary, _ = trained
    (tmp_path / "letter.txt").write_text("precious")
    with pytest.raises(FolderError, match="not a summary"):
        finetune_seeds(recipe.model_copy(update={"output": str(tmp_path)}))
    with pytest.raises(FolderError, match="a summary of several seeds"):
        open_run(summary)


def test_a_suite_runs_every_seed(make_base, reviews, tmp_path: Path) -> None:
    recipe = recipe_of(make_base("roberta"), reviews, tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    suite = SuiteRecipe.model_validate({"name": "s", "recipes": [{"recipe": "recipe.yaml"}]})
    assert [one.name for one in resolve_recipes(suite, tmp_path)] == [
        "tiny-seed-1",
        "tiny-seed-2",
        "tiny-seed-3",
    ]


def test_a_seed_named_twice_is_refused(make_base, reviews, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a seed twice"):
        recipe_of(make_base("roberta"), reviews, tmp_path, seeds=[1, 1])
