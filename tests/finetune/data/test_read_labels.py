"""Classes that are read off the data, and classes that are rare."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.core.errors import DataError, RecipeError
from finetune.data.reviews import load_corpus, read_labels
from finetune.planning.planning import make_plan
from finetune.recipes.text import DataSection, FinetuneRecipe
from finetune.run_folder import open_run
from finetune.training import finetune


def section(tmp_path: Path, labels: list[str], **more) -> DataSection:
    path = tmp_path / "data.csv"
    rows = [
        f"영화 배우 연기 {'감독 ' * (index % 7)}정말,{label}" for index, label in enumerate(labels)
    ]
    path.write_text("document,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return DataSection.model_validate({"path": str(path), "labels": "auto", **more})


def test_labels_are_those_of_the_column(tmp_path: Path) -> None:
    assert read_labels(section(tmp_path, ["환불", "배송", "환불", "기타"] * 5)) == {
        "기타": "기타",
        "배송": "배송",
        "환불": "환불",
    }
    assert list(read_labels(section(tmp_path, ["10", "9", "1.0", "1"] * 5))) == ["1", "9", "10"]


@pytest.mark.parametrize("labels", [["one"] * 8, [f"name {row}" for row in range(9)]])
def test_a_column_that_holds_no_classes_is_refused(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(DataError, match="does not look like classes"):
        read_labels(section(tmp_path, labels))


def test_labels_that_do_not_fit_are_answered_with_auto(tmp_path: Path) -> None:
    named = section(tmp_path, ["a", "b"] * 9).model_copy(update={"labels": {"0": "x", "1": "y"}})
    with pytest.raises(DataError, match="auto: as in the column"):
        load_corpus(named, seed=0)


def test_a_class_of_one_row_stays_in_training(tmp_path: Path) -> None:
    data = section(tmp_path, [*["a", "b"] * 20, "c"], validation_size=0.25, test_size=0.2)
    for seed in range(5):
        corpus = load_corpus(data, seed=seed)
        assert corpus.summary.labels == ("a", "b", "c")
        assert corpus.summary.splits["train"].balance["c"] == 1
        assert sum(one.rows for one in corpus.summary.splits.values()) == 41


def test_a_run_and_a_plan_know_the_classes_of_the_data(make_base, tmp_path: Path) -> None:
    content = {
        "output": str(tmp_path / "run"),
        "model": {"source": str(make_base("roberta")), "max_length": 32},
        "data": section(tmp_path, ["둘", "하나", "셋"] * 30).model_dump(),
        "training": {"max_steps": 2, "device": "cpu", "class_weights": "balanced"},
    }
    recipe = FinetuneRecipe.model_validate(content)
    run = open_run(finetune(recipe, report=lambda line: None))
    assert run.labels == ("둘", "셋", "하나")
    assert run.recipe.data.labels == {"둘": "둘", "셋": "셋", "하나": "하나"}
    plan = make_plan(recipe, probe=False, report=lambda line: None)
    assert "data.labels=auto: 3 classes" in plan.notes
    content["training"]["best_metric"] = "f1_binary"
    with pytest.raises(RecipeError, match="f1_binary needs two classes"):
        finetune(FinetuneRecipe.model_validate(content), report=lambda line: None)
    absent = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": "no.csv"})})
    notes = make_plan(absent, probe=False, report=lambda line: None).notes
    assert any("two classes are planned" in note for note in notes)
