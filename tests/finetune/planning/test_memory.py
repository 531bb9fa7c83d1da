"""Planned memory against the real thing: weights byte for byte, the step storage for storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.hardware.frozen_base import hold_frozen
from finetune.hardware.packed_lora import PackedLoraLinear, can_pack
from finetune.models.loading import load_base
from finetune.models.source import resolve_base
from finetune.planning.fake_model import storages
from finetune.planning.live_memory import GRADIENTS, OPTIMIZER, WEIGHTS, LiveMemory
from finetune.planning.memory import MemoryNeed, StepShape, estimate_memory
from finetune.planning.step import make_batch, make_optimizer, run_step
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import DTYPES, adapt_model, recipe_attention

METHODS = ("full", "lora", "qlora")
SHAPE = StepShape(rows=8, length=24, eval_rows=8, device="cpu", precision="bf16")


@pytest.fixture(scope="module")
def make_recipe(make_base: Callable[[str], Path]) -> Callable[..., FinetuneRecipe]:
    """A function: method, training keys → recipe on the tiny base."""

    def make(method: str, **training: Any) -> FinetuneRecipe:
        return FinetuneRecipe.model_validate(
            {
                "model": {"source": str(make_base("bert")), "max_length": 24},
                "data": {"source": "sample"},
                "adapter": {"method": method, "rank": 4, "alpha": 8},
                "training": {"batch_size": 8, **training},
            }
        )

    return make


def estimate(recipe: FinetuneRecipe, **shape: Any) -> MemoryNeed:
    return estimate_memory(
        recipe, resolve_base(recipe.model.source), StepShape(**{**vars(SHAPE), **shape})
    )


def build_real(recipe: FinetuneRecipe, precision: str = SHAPE.precision) -> torch.nn.Module:
    model = load_base(
        resolve_base(recipe.model.source),
        list(recipe.data.labels.values()),
        quantize_4bit=recipe.adapter.method == "qlora",
        compute_dtype=torch.bfloat16,
        attention=recipe_attention(recipe, "cpu", precision),
    )
    adapted = adapt_model(model, recipe, "cpu")
    hold_frozen(adapted, recipe, precision)
    return adapted.train()


@pytest.mark.parametrize("method", METHODS)
def test_the_planned_step_is_the_real_step(make_recipe, method: str) -> None:
    recipe = make_recipe(method)
    model, memory = build_real(recipe), LiveMemory()
    for tensor in storages(model):
        memory.count(tensor, WEIGHTS)
    weights_bytes = memory.live[WEIGHTS]
    optimizer = make_optimizer(model, recipe.training, "cpu")
    batch = make_batch(SHAPE.rows, SHAPE.length, 2, model.config.vocab_size)
    batch["attention_mask"][:, -1] = 0  # as plans take it: padding is present
    options = {"device": "cpu", "precision": "bf16", "max_grad_norm": 1.0}
    run_step(model, optimizer, [batch], **options)
    with memory:
        for state in optimizer.state.values():
            for value in state.values():
                memory.count(value, OPTIMIZER)
        memory.forget_peak()
        run_step(model, optimizer, [batch], **options)
    need = estimate(recipe)
    packed = 2 * packed_bytes(model, 2)  # oneDNN's: LiveMemory does not see them
    assert (packed > 0) == (method == "lora" and can_pack(torch.bfloat16))
    assert need.weights_bytes == weights_bytes + packed
    assert need.optimizer_bytes == memory.at_peak[OPTIMIZER]
    assert need.step_bytes - need.runtime_bytes == pytest.approx(
        memory.peak_bytes + packed, rel=0.03
    )


def packed_bytes(model: torch.nn.Module, itemsize: int) -> int:
    layers = [one for one in model.modules() if isinstance(one, PackedLoraLinear)]
    return sum(one.in_features * one.out_features * itemsize for one in layers)


def test_states_and_weights_are_what_their_types_say(make_recipe) -> None:
    full = estimate(make_recipe("full"))
    assert full.trainable_parameters == full.parameters
    assert full.optimizer_bytes == pytest.approx(8 * full.parameters, rel=0.01)
    eight_bit = estimate(make_recipe("full", optimizer="adamw_8bit"))
    assert 2 * full.parameters < eight_bit.optimizer_bytes < 0.5 * full.optimizer_bytes
    held, wide = (
        estimate(make_recipe("lora", base_precision=kind, cpu_memory="compact"))
        for kind in ("auto", "fp32")
    )
    assert held.trainable_parameters == wide.trainable_parameters
    assert wide.weights_bytes - held.weights_bytes == pytest.approx(
        2 * (held.parameters - held.trainable_parameters), rel=0.02
    )
    assert held.prediction_bytes > held.evaluation_bytes  # the base is back in fp32


@pytest.mark.skipif(not can_pack(), reason="this PyTorch packs no weights here")
@pytest.mark.parametrize(("precision", "itemsize"), [("bf16", 2), ("fp32", 4)])
def test_packed_weights_cost_a_second_copy(make_recipe, precision: str, itemsize: int) -> None:
    if not can_pack(DTYPES[precision]):
        pytest.skip(f"this processor multiplies by no packed {precision}")
    fast, compact = (
        estimate(make_recipe("lora", cpu_memory=kind), precision=precision)
        for kind in ("fast", "compact")
    )
    model = build_real(make_recipe("lora"), precision)
    placeholders = sum(isinstance(one, PackedLoraLinear) for one in model.modules()) * itemsize
    once = packed_bytes(model, itemsize)
    assert fast.weights_bytes - compact.weights_bytes == once + placeholders
    assert fast.parameters == compact.parameters
    assert fast.trainable_parameters == compact.trainable_parameters


def test_activations_follow_the_batch_and_checkpointing(make_recipe) -> None:
    recipe = make_recipe("lora")
    few, more, many = (estimate(recipe, rows=rows).activations_bytes for rows in (8, 16, 24))
    assert many - more == pytest.approx(more - few, rel=0.02)
    checkpointed = estimate(make_recipe("lora", gradient_checkpointing=True), rows=24)
    assert checkpointed.activations_bytes < 0.8 * many
    longer = estimate(recipe, length=48)
    assert longer.activations_bytes > 1.8 * few


def test_accumulated_gradients_stay_between_micro_batches(make_recipe) -> None:
    once = estimate(make_recipe("full"))
    twice = estimate(make_recipe("full", gradient_accumulation_steps=4))
    assert twice.step_bytes > once.step_bytes
    assert twice.gradients_bytes == pytest.approx(4 * twice.parameters, rel=0.02)


def test_a_planned_gpu_differs_where_cuda_does(make_recipe) -> None:
    recipe = make_recipe("lora", cpu_memory="compact")
    cpu, cuda = (estimate(recipe, device=device) for device in ("cpu", "cuda"))
    assert cuda.weights_bytes == cpu.weights_bytes
    assert cuda.activations_bytes != cpu.activations_bytes  # no score matrix, wider layer norms
    functional = torch.nn.functional
    assert functional.layer_norm.__name__ == "layer_norm"  # the rules are gone again


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plain_adamw_can_be_planned(make_recipe, device: str) -> None:
    """It divides by a power of its step, which fake tensors do not have."""
    plain, fused = (
        estimate(make_recipe("lora", optimizer=name), device=device)
        for name in ("adamw_torch", "adamw_torch_fused")
    )
    assert plain.optimizer_bytes == fused.optimizer_bytes
    assert plain.step_bytes >= fused.step_bytes  # foreach keeps lists of temporaries


def test_dropout_on_cuda_keeps_a_byte_an_element(make_recipe) -> None:
    """16 x 24 places of 64 values: three dropouts a layer keep a mask of bools, not of numbers."""
    with_dropout, without = (
        estimate(
            FinetuneRecipe.model_validate(
                recipe | {"model": {**recipe["model"], "dropout": dropout}}
            ),
            device="cuda",
            precision="fp32",
            rows=16,
        ).activations_bytes
        for recipe in [make_recipe("full").model_dump()]
        for dropout in (0.1, 0.0)
    )
    values = 16 * 24 * 64
    assert values < with_dropout - without < 3 * 2 * values * (4 + 1)


def test_fp16_holds_the_base_as_bf16_does(make_recipe) -> None:
    recipe = make_recipe("lora")
    half, brain, wide = (
        estimate(recipe, device="cuda", precision=one) for one in ("fp16", "bf16", "fp32")
    )
    assert half.weights_bytes == brain.weights_bytes < 0.6 * wide.weights_bytes


def test_final_predictions_need_no_more_of_a_gpu_than_training_did(make_recipe) -> None:
    """The base is back in fp32 then: where that is more than training needed, it is streamed."""
    recipe = make_recipe("lora", gradient_checkpointing=True)
    need = estimate(recipe, device="cuda", rows=1, eval_rows=1)
    assert need.prediction_bytes <= need.step_bytes
    kept = estimate(make_recipe("lora"), device="cuda", rows=64, eval_rows=1)
    assert kept.prediction_bytes < kept.step_bytes  # without streaming: activations were the more


def test_the_probe_takes_real_8bit_steps(make_recipe) -> None:
    recipe = make_recipe("full", optimizer="adamw_8bit", learning_rate=0.1)
    model = torch.nn.Linear(128, 64)
    before = model.weight.detach().clone()
    for fake in (True, False):
        optimizer = make_optimizer(model, recipe.training, "cpu", fake=fake)
        model(torch.ones(2, 128)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(model.weight, before) is fake
    assert optimizer.state[model.weight]["state1"].dtype == torch.uint8


def test_released_storages_are_not_counted() -> None:
    memory = LiveMemory()
    with memory:
        kept = torch.zeros(1000)
        memory.count(kept, GRADIENTS)
        torch.zeros(5000)
        view = kept.view(10, 100)
    assert memory.live[GRADIENTS] == 4000 == sum(memory.live.values())
    assert memory.peak_bytes == 24_000
    del kept
    assert memory.live[GRADIENTS] == 4000
    del view
    assert memory.live[GRADIENTS] == 0
