"""The products of a step are all counted, whichever operator carries them out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.training import matrix_peak as peaks
from bench.training.matrix_peak import matrix_peak, step_flops
from finetune.hardware.frozen_base import hold_frozen
from finetune.models.loading import load_base
from finetune.models.source import resolve_base
from finetune.planning.step import make_batch
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import adapt_model, recipe_attention

ROWS, LENGTH, RANK = 4, 12, 4


def count_step(base: Path, method: str, **training: Any) -> tuple[int, Any]:
    recipe = FinetuneRecipe.model_validate(
        {
            "model": {"source": str(base), "max_length": 16, "dropout": 0.1},
            "data": {"source": "sample"},
            "adapter": {"method": method, "rank": RANK, "alpha": 8},
            "training": training,
        }
    )
    model = load_base(
        resolve_base(str(base)),
        ["a", "b"],
        quantize_4bit=method == "qlora",
        attention=recipe_attention(recipe, "cpu", "fp32"),
    )
    adapted = adapt_model(model, recipe, "cpu")
    hold_frozen(adapted, recipe, "fp32")
    batch = make_batch(ROWS, LENGTH, 2, model.config.vocab_size)
    batch.pop("labels")
    trainer = SimpleNamespace(model=adapted, compute_loss_context_manager=nullcontext)
    return step_flops(trainer, batch)


def test_packed_and_4bit_products_count_as_plain_ones(make_base) -> None:
    base = make_base("roberta")
    plain, _ = count_step(base, "lora", cpu_kernels="library")
    packed, of_packed = count_step(base, "lora")
    assert packed == plain
    four_bit, _ = count_step(base, "qlora", cpu_kernels="library")
    assert four_bit == plain
    linear = load_base(resolve_base(str(base)), ["a", "b"]).modules()
    frozen = sum(one.weight.numel() for one in linear if isinstance(one, torch.nn.Linear))
    assert plain > 2 * 2 * 0.9 * ROWS * LENGTH * frozen  # forward and back, adapters beside
    peak = matrix_peak(of_packed, 0.05)
    assert peak["flops_per_s"] > 0 and peak["covered_share"] > 0.8


def test_the_peak_is_measured_where_the_step_runs(make_base, monkeypatch) -> None:
    """On a GPU its own products, waited for; the device stands in for one."""
    _, products = count_step(make_base("roberta"), "lora")
    assert {device for *_, device in products} == {"cpu"}
    made, waited, multiply = [], [], torch.mm
    cuda = torch.device("cuda")

    def draw(shape, device):
        made.append(device)
        return torch.ones(shape)

    monkeypatch.setattr(torch, "randn", draw)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(len(counted)))
    counted: list[int] = []
    monkeypatch.setattr(torch, "mm", lambda *pair: counted.append(1) or multiply(*pair))
    kind, left, right, dtype, _ = next(one for one in products if one[0] == "mm")
    assert peaks._rate((kind, left, right, dtype, str(cuda)), 0.01) > 0
    assert made == ["cuda", "cuda"]
    assert waited[0] == 1 and waited[-1] == len(counted)  # after the first, and after the last
    assert waited[1] == 1 + peaks.CALLS
