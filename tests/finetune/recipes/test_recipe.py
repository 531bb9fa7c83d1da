"""Recipes: every fault at once, suggestions, overrides, the packaged files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from finetune.core.errors import RecipeError
from finetune.recipes.files import (
    apply_overrides,
    check_recipe,
    dump_recipe,
    expand_path,
    find_recipe,
    load_recipe,
    packaged_recipes,
    read_yaml,
)
from finetune.recipes.pretraining import PretrainRecipe
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.registry import recipe_kind


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_all_faults_are_told_at_once_with_suggestions(tmp_path: Path) -> None:
    recipe = write(
        tmp_path / "r.yaml",
        "data: {source: sample}\ntraining: {learning_rat: 1, epochs: many}\nadapterr: {}\n",
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(FinetuneRecipe, recipe)
    message = str(caught.value)
    assert "3 faults" in message
    assert "training -> learning_rat: unknown key; did you mean `learning_rate`?" in message
    assert "training -> epochs" in message
    assert "did you mean `adapter`?" in message


def test_overrides_are_yaml_and_checked() -> None:
    content = {"data": {"source": "sample"}}
    recipe = check_recipe(
        FinetuneRecipe,
        apply_overrides(
            content,
            ["training.learning_rate=1e-4", "adapter.target_modules=[query, value]", "seed=7"],
        ),
        "test",
    )
    assert recipe.training.learning_rate == 1e-4
    assert recipe.adapter.target_modules == ["query", "value"]
    assert recipe.seed == 7
    assert content == {"data": {"source": "sample"}}


@pytest.mark.parametrize("override", ["no-equals", "=1", "name.sub=1"])
def test_malformed_overrides_are_refused(override: str) -> None:
    with pytest.raises(RecipeError):
        apply_overrides({"name": "x"}, [override])


def test_exactly_one_origin_of_data() -> None:
    for data in ({}, {"source": "nsmc", "path": "x"}):
        with pytest.raises(RecipeError, match="exactly one"):
            check_recipe(FinetuneRecipe, {"data": data}, "test")


def test_the_resolved_recipe_reads_back_the_same() -> None:
    recipe = load_recipe(FinetuneRecipe, "lecture-notes")
    assert check_recipe(FinetuneRecipe, yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_the_lecture_notes_are_reproduced() -> None:
    recipe = load_recipe(FinetuneRecipe, "configs/finetune/lecture-notes.yaml")
    training = recipe.training
    assert (recipe.model.source, recipe.model.max_length) == ("klue/roberta-large", 256)
    assert (recipe.data.rows, recipe.data.take, recipe.data.validation_size) == (500, "first", 0.25)
    assert (training.batch_size, training.learning_rate, training.weight_decay) == (8, 3e-5, 0.01)
    assert (training.warmup_steps, training.scheduler) == (300, "cosine_with_restarts")
    assert (training.eval_steps, training.epochs, recipe.seed) == (100, 10, 42)
    assert (training.early_stopping_patience, training.early_stopping_threshold) == (3, 0.001)
    assert (training.best_metric, recipe.data.test_size) == ("loss", 500)


def test_every_packaged_recipe_opens_with_its_command_and_is_valid() -> None:
    kinds = {"finetune": FinetuneRecipe, "pretrain": PretrainRecipe}
    names = packaged_recipes()
    assert {"finetune/klue-roberta-large-qlora", "finetune/lecture-notes"} <= set(names)
    for name, path in names.items():
        first, second = path.read_text("utf-8").splitlines()[:2]
        stage = name.split("/")[0]
        verb = {"suites": "(run|bench)", "bench": "bench (plan|training)"}.get(stage, stage)
        assert re.match(rf"# kotune {verb} configs/{name}\.yaml", first)
        assert second.startswith("# ") and len(second) > 10
        if stage in kinds:
            spoken = recipe_kind(read_yaml(path)) is SpeechRecipe
            load_recipe(SpeechRecipe if spoken else kinds[stage], str(path))


def test_unknown_recipe_names_are_answered_with_near_ones() -> None:
    with pytest.raises(RecipeError, match="klue-roberta-large-lora"):
        find_recipe("klue-roberta-large-lorra")


def test_a_binary_or_list_file_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\x80\x81\x82")
    with pytest.raises(RecipeError, match="not a YAML recipe"):
        load_recipe(FinetuneRecipe, str(tmp_path / "b.yaml"))
    with pytest.raises(RecipeError, match="not a recipe"):
        load_recipe(FinetuneRecipe, write(tmp_path / "l.yaml", "- 1\n"))


def test_variables_keep_their_names_until_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOTUNE_X", "somewhere")
    assert expand_path("${KOTUNE_X}/a", "data.path") == Path("somewhere/a")
    with pytest.raises(RecipeError, match="KOTUNE_ABSENT"):
        expand_path("${KOTUNE_ABSENT}/a", "data.path")
