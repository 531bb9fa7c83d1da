"""Sweeps: the space, validation only, pruning, going on from the store, the best recipe."""

from __future__ import annotations

import csv
from pathlib import Path

import optuna
import pytest

from finetune.core.errors import FolderError, ModelError, RecipeError
from finetune.core.files import read_json
from finetune.recipes.files import load_recipe
from finetune.recipes.sections import SweepSection
from finetune.recipes.text import FinetuneRecipe
from finetune.studies import sweep as module
from finetune.studies.command import load_sweep
from finetune.studies.results import SCHEMA
from finetune.studies.space import Choices, Range, combinations, parse_space
from finetune.studies.sweep import run_sweep


def content_of(base: Path, reviews: Path) -> dict:
    return {
        "name": "tiny",
        "model": {"source": str(base), "max_length": 24},
        "data": {"path": str(reviews), "validation_size": 0.2, "test_size": 0.2},
        "adapter": {"method": "lora", "rank": 4, "alpha": 8},
        "training": {
            "max_steps": 4,
            "eval_steps": 2,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "device": "cpu",
            "precision": "fp32",
        },
    }


def section_of(folder: Path, parameters: dict, **more) -> SweepSection:
    return SweepSection(parameters=parameters, output=str(folder), **more)


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4,8,16", Choices((4, 8, 16))),
        ("1e-4,3e-4", Choices((1e-4, 3e-4))),
        ("all-linear,attention", Choices(("all-linear", "attention"))),
        ("[query,value],all-linear", Choices((["query", "value"], "all-linear"))),
        ("true,false", Choices((True, False))),
        ("1e-4:1e-3:log", Range(1e-4, 1e-3, True)),
        ("2:8", Range(2, 8, False)),
        ("0:0.1", Range(0.0, 0.1, False)),
    ],
)
def test_values_of_a_parameter(text: str, values) -> None:
    assert parse_space({"key": text})["key"] == values


@pytest.mark.parametrize("text", ["1:2:lin", "3:1", "0:1:log", "a:b", "8,8", "1:2:log:4", "nan:1"])
def test_values_that_are_no_range(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_space({"key": text})


def test_combinations_of_choices_only() -> None:
    space = parse_space({"a": [1, 2], "b": [["x"], "y"]})
    assert combinations(space) == [
        {"a": 1, "b": '["x"]'},
        {"a": 1, "b": "y"},
        {"a": 2, "b": '["x"]'},
        {"a": 2, "b": "y"},
    ]
    assert combinations(parse_space({"a": [1], "b": "1:2"})) is None


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (["adapter.rnk=4,8"], "did you mean `rank`"),
        (["adapter.rank=0,4"], "rank"),
        (["data.rows=100,200"], "cannot be searched"),
        (["seed=1,2"], "cannot be searched"),
        (["training.best_metric=loss,accuracy"], "cannot be searched"),
        (["adapter.rank"], "key=values"),
    ],
)
def test_wrong_parameters_are_told_before_anything_runs(parameters: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_sweep("finetune/demo-lora", [], parameters, {})


def test_the_section_and_the_options(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: tiny\ndata: {source: sample}\n"
        "sweep: {trials: 3, parameters: {adapter.rank: [4, 8], training.epochs: '1:2'}}\n"
    )
    content, section = load_sweep(str(path), ["adapter.alpha=8"], [], {"trials": 5, "output": None})
    assert "sweep" not in content and content["adapter"] == {"alpha": 8}
    assert (section.trials, section.output) == (5, "sweeps/{name}")
    _, section = load_sweep(str(path), [], ["model.dropout=0.0:0.2"], {})
    assert section.parameters == {"model.dropout": "0.0:0.2"}
    assert "sweep" not in load_recipe(FinetuneRecipe, str(path)).model_dump()


def test_a_sweep_cut_off_goes_on_and_sees_validation_rows_only(
    make_base, reviews, tmp_path: Path, monkeypatch
) -> None:
    content = content_of(make_base("roberta"), reviews)
    section = section_of(
        tmp_path / "sweep",
        {"adapter.rank": [2, 4], "training.learning_rate": "1e-4:1e-2:log"},
        trials=3,
    )
    real, seen = module.train_trial, []

    def cut_off(recipe, trial):
        if len(seen) == 1:
            seen.append("cut off")
            raise KeyboardInterrupt
        seen.append(recipe)
        return real(recipe, trial)

    monkeypatch.setattr(module, "train_trial", cut_off)
    from finetune.models import predicting as models
    from finetune.tasks.text import evaluation

    for place in (evaluation, models):
        monkeypatch.setattr(place, "predict_logits", lambda *a, **k: pytest.fail("it predicted"))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(content, section, report=quiet)
    folder = run_sweep(content, section, report=quiet)
    document = read_json(folder / "sweep.json", SCHEMA)
    assert len(seen) == 4 and len(document["trials"]) == 3
    store = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}")
    interrupted, queued = store.trials[1], store.trials[2]
    assert interrupted.state.name == "FAIL" and queued.params == interrupted.params
    values = [one["value"] for one in document["trials"]]
    assert values == sorted(values, reverse=True)

    best = load_recipe(FinetuneRecipe, str(folder / "best.yaml"))
    first = document["trials"][0]
    assert best.name == "tiny-best" and best.adapter.rank == first["parameters"]["adapter.rank"]
    assert best.training.learning_rate == first["parameters"]["training.learning_rate"]
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [int(row["trial"]) for row in rows] == [one["trial"] for one in document["trials"]]
    assert "| adapter.rank |" in (folder / "trials.md").read_text()
    assert not list(folder.rglob("*.safetensors")) and not list(folder.rglob("*.parquet"))

    told: list[str] = []
    run_sweep(content, section, report=told.append)
    assert "3 of 3 trials done before" in told[0] and len(seen) == 4
    assert sorted(one["trial"] for one in document["trials"]) == [1, 2, 3]
    table = told[-5:-1]  # a cut off trial has no number, and no row
    assert table[0].startswith("trial  state") and "adapter.rank" in table[0]
    assert [int(line.split()[0]) for line in table[1:]] == [
        one["trial"] for one in document["trials"]
    ]
    assert told[-1].startswith(f"best: trial {first['trial']}, ")

    other = section.model_copy(update={"parameters": {"adapter.rank": [2, 8]}})
    with pytest.raises(FolderError, match=r"another sweep(.|\n)*sweep.parameters"):
        run_sweep(content, other, report=quiet)


def test_every_combination_runs_once_and_what_cannot_be_trained_is_an_outcome(
    make_base, reviews, tmp_path: Path
) -> None:
    content = content_of(make_base("roberta"), reviews)
    content["adapter"]["method"] = "pissa"
    section = section_of(tmp_path / "sweep", {"adapter.rank": [4, 1000]}, trials=20)
    folder = run_sweep(content, section, report=quiet)
    good, bad = read_json(folder / "sweep.json", SCHEMA)["trials"]
    assert (good["state"], good["parameters"]) == ("complete", {"adapter.rank": 4})
    assert (bad["state"], bad["value"]) == ("failed", None)
    assert "rank is too high" in bad["fault"]


def test_a_sweep_of_failures_is_an_error(make_base, reviews, tmp_path: Path) -> None:
    content = content_of(make_base("roberta"), reviews)
    content["adapter"]["method"] = "pissa"
    section = section_of(tmp_path / "sweep", {"adapter.rank": [900, 1000]})
    with pytest.raises(ModelError, match=r"no trial(.|\n)*rank is too high"):
        run_sweep(content, section, report=quiet)


def test_a_hopeless_trial_is_pruned(make_base, reviews, tmp_path: Path) -> None:
    content = content_of(make_base("roberta"), reviews)
    content["training"] |= {"max_steps": 8, "eval_steps": 4, "best_metric": "loss"}
    section = section_of(
        tmp_path / "sweep", {"training.learning_rate": [1e-3, 1.0]}, startup_trials=1
    )
    folder = run_sweep(content, section, report=quiet)
    good, bad = read_json(folder / "sweep.json", SCHEMA)["trials"]
    assert (good["state"], good["steps"]) == ("complete", 8)
    assert list(good["evaluations"]) == ["50", "100"]
    assert (bad["state"], list(bad["evaluations"])) == ("pruned", ["50"])


def test_a_folder_of_something_else_is_never_replaced(make_base, reviews, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("precious")
    section = section_of(tmp_path, {"adapter.rank": [2, 4]})
    with pytest.raises(FolderError, match="not a sweep"):
        run_sweep(content_of(make_base("roberta"), reviews), section, overwrite=True, report=quiet)
    assert (tmp_path / "letter.txt").read_text() == "precious"
