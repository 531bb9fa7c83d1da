"""Plans: lengths, steps, what fits, the command; and frozen weights held in bf16."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from finetune.adapters.attach import attach_adapter
from finetune.core.errors import RecipeError
from finetune.hardware.cpu_kernels import QuickDropout
from finetune.hardware.frozen_base import hold_frozen
from finetune.hardware.packed_lora import PackedLoraLinear, can_pack, is_placeholder
from finetune.models.loading import load_base
from finetune.models.source import resolve_base
from finetune.planning.command import parse_bytes
from finetune.planning.compare import compare_plans, comparison_table
from finetune.planning.data import Lengths, count_steps, padded_tokens
from finetune.planning.fit import fit_recipe
from finetune.planning.memory import MemoryNeed
from finetune.planning.planning import make_plan
from finetune.recipes.files import dump_recipe
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import adapt_model, recipe_attention
from kotune import app


@pytest.fixture
def make_recipe(make_base: Callable[[str], Path], reviews: Path) -> Callable[..., FinetuneRecipe]:
    """A function: method, training keys → recipe on the tiny base and the made-up reviews."""

    def make(method: str = "lora", **training: Any) -> FinetuneRecipe:
        return FinetuneRecipe.model_validate(
            {
                "model": {"source": str(make_base("roberta")), "max_length": 32},
                "data": {"path": str(reviews), "validation_size": 0.4, "test_size": 0.1},
                "adapter": {"method": method, "rank": 4, "alpha": 8},
                "training": {"batch_size": 16, "eval_batch_size": 8, "precision": "bf16"}
                | training,
            }
        )

    return make


def test_a_plan_knows_the_real_rows(make_recipe, make_run) -> None:
    plan = make_plan(make_recipe(epochs=2), report=lambda line: None)
    info = json.loads((make_run("lora", "roberta") / "data.json").read_text())
    assert plan.lengths.rows == info["splits"]["train"]["rows"]
    assert plan.shape.length == plan.lengths.longest == info["token_lengths"]["p100"]
    assert plan.steps == 2 * plan.steps_per_epoch == 2 * -(-plan.lengths.rows // 16)
    assert [one for one in plan.notes if "adds no special tokens" not in one] == []  # as made here
    assert plan.fits is None
    assert plan.training_s is not None and plan.training_s > 0
    assert plan.speed is not None and plan.speed.steps >= 3


def test_steps_are_counted_as_trainer_counts_them(make_run, make_recipe) -> None:
    recipe = make_recipe(gradient_accumulation_steps=3, epochs=1.5)
    assert count_steps(recipe, 100) == (5, 3)  # 7 micro-batches: 3 steps an epoch
    assert count_steps(make_recipe(max_steps=7), None) == (7, None)
    assert count_steps(recipe, None) == (None, None)


def test_padding_follows_the_order_of_rows(make_recipe) -> None:
    tokens = np.random.default_rng(0).integers(4, 32, 400)
    lengths = Lengths(400, int(tokens.max()), tokens, None)
    grouped, random = (
        padded_tokens(make_recipe(group_by_length=on), lengths)[1] for on in (True, False)
    )
    fixed = padded_tokens(make_recipe(padding="max_length"), lengths)
    assert grouped < 0.5 * random < random < fixed[1]
    assert fixed[0] == 16 * 32


def needs(recipe: FinetuneRecipe) -> MemoryNeed:
    """A made-up machine where rows, checkpointing and methods cost round numbers."""
    training, method = recipe.training, recipe.adapter.method
    fixed = {"full": 1600, "lora": 500, "qlora": 200}[method]
    row = 2 if training.gradient_checkpointing else 20
    step = fixed + row * training.batch_size
    evaluation = fixed + 10 * training.eval_batch_size
    return MemoryNeed(1, 1, fixed, 0, 0, step - fixed, 0, step, evaluation, evaluation)


@pytest.mark.parametrize(
    ("room", "changed"),
    [
        (2000, {}),
        (1800, {"training.batch_size": 8, "training.gradient_accumulation_steps": 2}),
        (1650, {"training.gradient_checkpointing": True, "training.eval_batch_size": 1}),
        (900, {"adapter.method": "lora"}),
        (260, {"adapter.method": "qlora", "training.gradient_checkpointing": True}),
    ],
)
def test_the_effective_batch_stays_whatever_is_given_up(make_recipe, room, changed) -> None:
    recipe = make_recipe("full", eval_batch_size=16)
    fit = fit_recipe(recipe, room, needs)
    assert fit is not None and needs(fit.recipe).peak_bytes <= room
    training = fit.recipe.training
    assert training.batch_size * training.gradient_accumulation_steps == 16
    for key, value in changed.items():
        if key != "training.eval_batch_size":
            assert fit.changes[key] == value
    assert bool(fit.changes) == bool(changed)


def test_a_memory_too_small_is_said_plainly(make_recipe) -> None:
    assert fit_recipe(make_recipe("full"), 150, needs) is None


def test_the_command_prints_one_json_object(make_base, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    source = make_base("roberta")
    path.write_text(
        f"name: plan\nmodel: {{source: {source}, max_length: 24}}\n"
        "data: {path: absent.csv, rows: 100, validation_size: 20}\n"
    )
    words = ["plan", str(path), "training.batch_size=8", "--device", "cuda", "--no-probe"]
    done = CliRunner().invoke(app, [*words, "--memory", "1GiB", "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["device"] == "cuda" and record["length"] == 24 and record["steps"] == 30
    assert record["fits"] is True and record["changes"] == {}
    assert any("max_length=24" in note for note in record["notes"])
    assert record["memory"]["peak_bytes"] > record["memory"]["weights_bytes"] > 0
    assert record["training_s"] is None


def test_the_table_names_the_lines_to_change(make_base, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    source = make_base("roberta")
    path.write_text(
        f"name: plan\nmodel: {{source: {source}, max_length: 60}}\n"
        "data: {path: absent.csv, rows: 100, validation_size: 20}\n"
        "training: {batch_size: 64, eval_batch_size: 8}\n"
    )
    words = ["plan", str(path), "--device", "cuda", "--no-probe"]
    asked = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    room = asked["outside_bytes"] + int(0.7 * asked["memory"]["peak_bytes"])
    done = CliRunner().invoke(app, [*words, "--memory", f"{room}b"])
    assert done.exit_code == 0, done.output
    assert "training.batch_size=" in done.stdout and "gradient_accumulation_steps:" in done.stdout
    small = CliRunner().invoke(app, [*words, "--memory", f"{asked['outside_bytes']}b"])
    assert "Nothing fits" in small.stdout


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 10**9), ("1.5 GiB", 3 << 29), ("9", 9 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["six", "6XB", "-1GB", ""])
def test_no_sizes(text: str) -> None:
    with pytest.raises(RecipeError, match="--memory"):
        parse_bytes(text)


@pytest.mark.parametrize("memory", ["fast", "compact"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_frozen_weights_come_back_bit_for_bit(
    make_recipe, make_base, method: str, memory: str
) -> None:
    recipe = make_recipe(method, cpu_memory=memory)
    model = attach_adapter(
        load_base(
            resolve_base(str(make_base("roberta"))),
            ["a", "b"],
            quantize_4bit=method == "qlora",
            compute_dtype=torch.bfloat16,
        ),
        method=method,
        rank=4,
        alpha=8,
        dropout=0.0,
        target_modules="all-linear",
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    originals = hold_frozen(model, recipe, "bf16")
    kinds = {value.dtype for value in model.parameters() if not value.requires_grad} - {torch.uint8}
    assert kinds == {torch.bfloat16}
    trained = {value.dtype for value in model.parameters() if value.requires_grad}
    assert trained == {torch.float32}
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([1])}
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train()(**batch).loss
    loss.backward()
    gradients = [one.grad for name, one in model.named_parameters() if "lora_B" in name]
    assert all(one.dtype == torch.float32 and one.abs().sum() > 0 for one in gradients)
    assert originals is not None
    originals.give_back(model)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) and value.dtype == before[name].dtype


def test_the_libraries_own_kernels_are_left_alone(make_recipe, make_base) -> None:
    recipe = make_recipe("lora", cpu_kernels="library")
    assert recipe_attention(recipe, "cpu", "bf16") is None
    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    adapted = adapt_model(model, recipe, "cpu")
    hold_frozen(adapted, recipe, "fp32")
    kinds = {type(module) for module in adapted.modules()}
    assert PackedLoraLinear not in kinds and QuickDropout not in kinds


@pytest.mark.skipif(not can_pack(), reason="this PyTorch packs no weights here")
def test_packed_fp32_weights_come_back_and_answer_the_same(make_recipe, make_base) -> None:
    recipe = make_recipe("lora")
    model = adapt_model(
        load_base(resolve_base(str(make_base("roberta"))), ["a", "b"]), recipe, "cpu"
    ).eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    with torch.no_grad():
        expected = model(**batch).logits
        originals = hold_frozen(model, recipe, "fp32")
        assert any(is_placeholder(value) for value in model.parameters())
        assert torch.allclose(model(**batch).logits, expected, atol=1e-5)
        originals.give_back(model)
        assert torch.equal(model(**batch).logits, expected)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])


def test_the_base_is_held_only_where_that_is_known_to_be_sound(make_recipe, make_base) -> None:
    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    assert hold_frozen(model, make_recipe("full"), "bf16") is None
    assert hold_frozen(model, make_recipe("lora", base_precision="fp32"), "bf16") is None
    assert hold_frozen(model, make_recipe("lora", cpu_memory="compact"), "fp32") is None
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_a_comparison_holds_every_combination(make_recipe) -> None:
    """On a GPU that is not there: fp32 and bf16 of full, LoRA, QLoRA and the recipe's own."""
    recipe = make_recipe("ia3", device="cuda", precision="auto")
    comparison = compare_plans(recipe, report=lambda line: None)
    found = {
        (one.method, one.precision, one.gradient_checkpointing): one.need
        for one in comparison.combinations
    }
    assert len(found) == len(comparison.combinations) == 4 * 2 * 2
    full, lora = found["full", "fp32", False], found["lora", "fp32", False]
    assert full.optimizer_bytes > 5 * lora.optimizer_bytes
    assert found["full", "fp32", True].activations_bytes < full.activations_bytes
    alone = make_plan(make_recipe("lora", device="cuda", precision="fp32"), probe=False)
    assert alone.need == lora

    told = Console(file=io.StringIO(), width=140)
    told.print(comparison_table(comparison))
    assert told.file.getvalue().count("qlora") == 4


@pytest.mark.slow
def test_the_command_prints_every_combination(make_recipe, tmp_path: Path) -> None:
    recipe = make_recipe("ia3", device="cuda", precision="auto")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    printed = CliRunner().invoke(app, ["plan", str(path), "--compare", "--json"])
    record = json.loads(printed.stdout)
    comparison = compare_plans(recipe, report=lambda line: None)
    assert [one["peak_bytes"] for one in record["combinations"]] == [
        one.need.peak_bytes for one in comparison.combinations
    ]
    refused = CliRunner().invoke(app, ["plan", str(path), "--compare", "--memory", "1GB"])
    assert isinstance(refused.exception, RecipeError)
