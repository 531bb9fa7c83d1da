"""YAML of recipes: what values are, every fault a message, nothing unbounded."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from finetune.core.errors import RecipeError
from finetune.recipes.files import apply_overrides, load_recipe, read_yaml
from finetune.recipes.text import FinetuneRecipe
from finetune.recipes.yaml_text import LARGEST_BYTES, parse_yaml, write_yaml
from kotune import app

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2.5e+3", 2500.0),
        ("1_000", 1000),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("010", "010"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[query, value]", ["query", "value"]),
        ('"1"', "1"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}", "r.yaml") == {"a": value}


def test_keys_are_text_as_they_are_written() -> None:
    found = parse_yaml("labels: {0: a, 010: b, true: c, no: d, 1.0: e}", "r.yaml")
    assert found == {"labels": {"0": "a", "010": "b", "true": "c", "no": "d", "1.0": "e"}}


def test_anchors_and_merges_are_read() -> None:
    text = "base: &base {x: 1}\none: {<<: *base, y: 2}\ntwo: {<<: *base, x: 3}\n"
    found = parse_yaml(text, "r.yaml")
    assert (found["one"], found["two"]) == ({"x": 1, "y": 2}, {"x": 3})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "a bracket is not closed"),
        ("a: 1\nb: {c: 2\n", "a bracket is not closed"),
        ("a: 'open", "a quote is not closed"),
        ("a:\n\t- 1", "not with a tab"),
        ("a: b: c", 'holds ": " wants quotes'),
        ("a: *.csv", "begins with * or & wants quotes"),
        ("a: *unknown", "begins with * wants quotes"),
        ("a: @x", "wants quotes"),
        ("a: !!python/object/apply:os.system [true]", "tags are not read"),
        ("a: !!timestamp 2024-01-01", "tags are not read"),
        ("a: !secret x", "tags are not read"),
        ("a: 1\nb: 2\na: 3", "line 3: the key `a` stands twice, first in line 1"),
        ("x:\n  a: 1\n  a: 1", "line 3: the key `a` stands twice, first in line 2"),
        ("{a: 1, 'a': 2}", "stands twice"),
        ("? [1, 2]\n: 3", "a key is a list or a mapping"),
        ("a: " + "[" * 1000, "nested more than"),
        ("a: " + "{b: " * 1000, "nested more than"),
        ("a: &a [*a]", "holds itself"),
        (LAUGHS, "unfolds to more"),
        ("a: 1\n---\nb: 2", "remove the second ---"),
        ("a: \x00", "cannot be read as YAML"),
        ("a: \ud800", "cannot be read as YAML"),
        ("<<: 5", "mapping"),
    ],
)
def test_every_fault_is_one_message(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "r.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("r.yaml")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=string.printable + "한&*!|>\u2028", max_size=40))
def test_no_text_ends_in_anything_but_a_message(text: str) -> None:
    try:
        found = parse_yaml(text, "r.yaml")
    except RecipeError:
        return
    assert isinstance(found, dict | list | str | int | float | bool | None)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
WORDS = st.text(max_size=12) | st.sampled_from(
    ["1e-4", "no", "2024-01-01", "010", "12:30", "~", "<<", "=", "*a", "true", "1_0", "0x1f"]
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(WORDS, SCALARS | WORDS | st.lists(WORDS, max_size=3), max_size=4))
def test_what_is_written_is_read_back_here_and_elsewhere(content: dict[str, object]) -> None:
    written = write_yaml(content)
    assert parse_yaml(written, "r.yaml") == content
    assert yaml.safe_load(written) == content


@pytest.mark.parametrize(
    "override",
    [
        "training.epochs=[",
        "data.path=*.csv",
        "data.path=&x",
        "data.path=!x",
        "data.path=%x",
        "data.path=`x`",
        "data.path=reviews #1.csv",
        "data.path=#1.csv",
        "data.labels={0: a, 0: b}",
        "data.path=|",
        "training..epochs=1",
        "training.=1",
        "data.path=\udcff",
    ],
)
def test_an_override_that_is_no_yaml_is_a_message(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides({"training": {}}, [override])
    assert override in str(caught.value)


def test_the_quoted_value_that_is_advised_is_read() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides({}, ["data.path=*.csv"])
    advised = caught.value.next_step.partition(": ")[2].strip("'")
    assert apply_overrides({}, [advised]) == {"data": {"path": "*.csv"}}


def test_files_are_utf_8_and_small(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("data: {path: 리뷰.csv}".encode("cp949"))
    with pytest.raises(RecipeError, match=r"not UTF-8(.|\n)*CP949"):
        read_yaml(path)
    path.write_text("data: {path: x}", encoding="utf-16")
    with pytest.raises(RecipeError, match=r"not UTF-8(.|\n)*UTF-16"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfdata: {path: x}")
    assert read_yaml(path) == {"data": {"path": "x"}}
    path.write_bytes(b"a" * (LARGEST_BYTES + 1))
    with pytest.raises(RecipeError, match="too large"):
        read_yaml(path)
    path.write_text("# nothing but a remark\n")
    with pytest.raises(RecipeError, match=r"not a recipe\n.*nothing"):
        read_yaml(path)


@pytest.mark.parametrize("command", ["finetune", "plan", "sweep", "pretrain", "run", "bench"])
def test_no_command_ends_in_a_traceback_of_yaml(command: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {source: sample}\ndata: {source: nsmc}\n", encoding="utf-8")
    done = CliRunner().invoke(app, [command, str(path)])
    assert isinstance(done.exception, RecipeError), done.exception
    assert "stands twice" in str(done.exception)


def test_other_tools_names_are_answered_with_the_key() -> None:
    words = ["training.num_train_epochs=3", "training.fp16=true", "lr=1e-4", "adapter.lora_alpha=4"]
    words += ["training.per_device_train_batch_size=8", "training.load_best_model_at_end=true"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(FinetuneRecipe, "demo-lora", words)
    message = str(caught.value)
    for told in (
        "num_train_epochs: unknown key; use `training.epochs`",
        "fp16: unknown key; use `training.precision=fp16`",
        "lr: unknown key; use `training.learning_rate`",
        "lora_alpha: unknown key; use `adapter.alpha`",
        "per_device_train_batch_size: unknown key; use `training.batch_size`",
        "the best evaluation's weights are always kept",
    ):
        assert told in message


def test_a_key_without_its_section_is_answered_with_it() -> None:
    with pytest.raises(RecipeError, match=r"rank: unknown key; use `adapter\.rank`"):
        load_recipe(FinetuneRecipe, "demo-lora", ["rank=4"])


def test_other_data_takes_the_place_of_the_recipes() -> None:
    found = load_recipe(FinetuneRecipe, "demo-lora", ["data.path=reviews.csv"]).data
    assert (found.source, found.path) == (None, "reviews.csv")
    back = apply_overrides({"data": {"path": "x", "test_path": "y"}}, ["data.source=sample"])
    assert back == {"data": {"source": "sample"}}
    both = ["data.path=x", "data.source=sample"]
    with pytest.raises(RecipeError, match="exactly one"):
        load_recipe(FinetuneRecipe, "demo-lora", both)


@pytest.mark.parametrize(
    ("command", "recipe", "told"),
    [
        ("finetune", "suites/demo", "kotune run suites/demo"),
        ("sweep", "suites/demo", "kotune run suites/demo"),
        ("plan", "suites/demo", "kotune run suites/demo"),
        ("finetune", "pretrain/tiny", "kotune pretrain pretrain/tiny"),
        ("finetune", "bench/training-e5", "kotune bench training bench/training-e5"),
        ("pretrain", "demo-lora", "kotune finetune demo-lora"),
        ("run", "demo-lora", "kotune finetune demo-lora"),
        ("run", "bench/training-e5", "kotune bench training bench/training-e5"),
    ],
)
def test_a_recipe_of_another_command_is_answered_with_it(
    command: str, recipe: str, told: str
) -> None:
    done = CliRunner().invoke(app, [command, recipe])
    assert isinstance(done.exception, RecipeError), done.exception
    assert done.exception.next_step == told


@pytest.mark.parametrize("value", ["runs/{nam}", "runs/{", "runs/{0}", "runs/{name.x}"])
def test_a_folder_that_cannot_be_named_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match="may stand in braces"):
        load_recipe(FinetuneRecipe, "demo-lora", [f'output="{value}"'])


@pytest.mark.parametrize("value", [".inf", ".nan", "-.inf"])
def test_a_number_is_finite(value: str) -> None:
    with pytest.raises(RecipeError, match="training -> epochs"):
        load_recipe(FinetuneRecipe, "demo-lora", [f"training.epochs={value}"])
