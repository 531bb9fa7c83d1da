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
from finetune.recipes.schedules import ARGUMENTS
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


def faults_of(content: dict, kind: type = FinetuneRecipe) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        check_recipe(kind, content, "test")
    return [line[4:] for line in caught.value.what.splitlines()[1:]]


def test_keys_that_are_valid_alone_and_not_together_are_told_with_the_others() -> None:
    told = faults_of(
        {
            "data": {"source": "sample", "path": "x", "labels": {"a": "A", "b": "B", "c": "C"}},
            "adapter": {"method": "pissa", "dropout": 0.1, "learning_rate_ratio": 4},
            "training": {
                "best_metric": "f1_binary",
                "scheduler": "linear",
                "scheduler_kwargs": {"num_cycles": 3},
                "precision": "fp16",
                "device": "cpu",
                "optimizer": "adamw_8bit",
                "learning_rat": 1,
            },
            "export": {"device": "cuda", "precisions": ["int8-dynamic", "openvino-int8", "fp16"]},
        }
    )
    wanted = (
        "data: exactly one of `source`",
        "adapter: `learning_rate_ratio` belongs to `method` lora+, not to pissa",
        "adapter: `dropout` must be 0 with `method` pissa",
        "training: `scheduler_kwargs` num_cycles is no argument of `scheduler` linear: none",
        "training: training.precision=fp16 needs CUDA",
        "training -> learning_rat: unknown key",
        "recipe: training.best_metric=f1_binary needs two classes, data.labels has 3",
        "recipe: export.precisions int8-dynamic runs on the CPU only",
        "recipe: export.precisions openvino-int8 runs on the CPU only",
    )
    for line in wanted:
        assert any(one.startswith(line) for one in told), (line, told)
    assert len(told) == len(wanted)


def test_what_follows_from_a_key_that_is_wrong_by_itself_is_not_told() -> None:
    told = faults_of(
        {
            "data": {"source": "sample", "labels": "neg"},
            "adapter": {"method": "lorra+", "learning_rate_ratio": 4},
            "training": {"best_metric": "f1_binary"},
        }
    )
    assert len(told) == 2
    assert told[0].startswith("data -> labels") and told[1].startswith("adapter -> method")


def test_faults_of_other_recipes_are_told_together_too() -> None:
    sizes = {"hidden_size": 30, "heads": 4, "max_positions": 20}
    told = faults_of({"corpus": {"path": "x"}, "architecture": sizes}, PretrainRecipe)
    assert len(told) == 2 and "max_positions" in told[1]
    adapter = {"method": "lora"}
    speech = {
        "task": "speech-recognition",
        "data": {"path": "x"},
        "adapter": adapter,
        "model": {"freeze_feature_encoder": True},
        "export": {"device": "cuda", "precisions": ["int8-static"]},
    }
    assert len(faults_of(speech, SpeechRecipe)) == 3


@pytest.mark.parametrize(
    ("schedule", "arguments", "told"),
    [
        ("cosine_with_min_lr", {}, "needs one of min_lr, min_lr_rate"),
        ("cosine_with_min_lr", {"min_lr": 1.0}, "not below `learning_rate`"),
        ("cosine_with_min_lr", {"min_lr_rate": 1.5}, "a share of the learning rate"),
        ("polynomial", {"lr_end": 1.0}, "not below `learning_rate`"),
        ("cosine_with_restarts", {"num_cycles": 1.5}, "whole, not 1.5"),
        ("cosine", {"num_cycles": "two"}, "must be a number"),
        ("constant", {"lr_end": 0}, "is no argument of `scheduler` constant"),
        ("inverse_sqrt", {"timescale": 10}, "is no argument of `scheduler` inverse_sqrt"),
    ],
)
def test_a_schedule_is_held_against_its_arguments(schedule, arguments, told: str) -> None:
    training = {"scheduler": schedule, "scheduler_kwargs": arguments}
    (line,) = faults_of({"data": {"source": "sample"}, "training": training})
    assert told in line


def test_the_schedules_are_the_librarys() -> None:
    """Every argument is taken, and no other: held against transformers' own functions."""
    import inspect

    import torch
    from transformers import get_scheduler
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION as FUNCTIONS

    given = {"num_cycles": 2, "min_lr": 1e-5, "min_lr_rate": None, "lr_end": 1e-6, "power": 2}
    for name, arguments in ARGUMENTS.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        own = {key: given[key] for key in arguments}
        get_scheduler(name, optimizer, 1, 10, own)
        usual = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
        known = set(inspect.signature(FUNCTIONS[name]).parameters) - usual
        assert known - {"timescale"} == set(arguments)


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


@pytest.mark.parametrize(
    "override",
    ["seed=true", "export.answers=true", "training.learning_rate=true", "data.test_size=false"],
)
def test_a_switch_is_no_number(override: str) -> None:
    with pytest.raises(RecipeError, match="not true or false"):
        load_recipe(FinetuneRecipe, "finetune/demo-lora", [override])
