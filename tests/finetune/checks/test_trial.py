"""A trial step before training: what is taken instead, what is refused, what it leaves behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import write_architecture

from finetune.checks.trial import Way, settle_way, take_step
from finetune.core.errors import ModelError, RecipeError
from finetune.loop.ledger import peak_memory_bytes, unrecorded_peak
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import open_run
from finetune.training import finetune

EVERY = [Way(*pair) for pair in itertools.product(("auto", "library"), ("bf16", "fp32"))]


def settle(working: list[Way], kernels: str = "auto", precision: str = "auto"):
    """``settle_way`` where only some ways work; (what it settled, ways in the order tried)."""
    tried: list[Way] = []

    def step(built: Way, way: Way) -> None:
        assert built == way
        tried.append(way)
        if way not in working:
            raise RuntimeError(f"no {way.kernels} in {way.precision}\nand more")

    first = Way(kernels, "bf16" if precision == "auto" else precision)
    return settle_way(first, lambda way: way, step, kernels=kernels, precision=precision), tried


def test_what_works_is_taken_as_it_is() -> None:
    settled, tried = settle(EVERY)
    assert settled.way == Way("auto", "bf16") and settled.signs == () and len(tried) == 1


@pytest.mark.parametrize(
    ("working", "told"),
    [
        (Way("library", "bf16"), "training.cpu_kernels=library"),
        (Way("auto", "fp32"), "training.precision=fp32"),
        (Way("library", "fp32"), "training.cpu_kernels=library training.precision=fp32"),
    ],
)
def test_auto_gives_way_and_says_so(working: Way, told: str) -> None:
    settled, _ = settle([working])
    assert settled.way == settled.built == working
    assert settled.signs[0].message == (
        f"a trial step failed (RuntimeError: no auto in bf16): trained with {told}, with which it "
        "works"
    )


def test_what_the_recipe_fixed_is_refused_with_the_way_out() -> None:
    with pytest.raises(RecipeError) as fault:
        settle([Way("auto", "fp32")], precision="bf16")
    assert "training.precision=bf16 does not work with this model" in str(fault.value)
    assert fault.value.next_step.startswith("training.precision=fp32")
    with pytest.raises(ModelError, match="in every way that was tried"):
        settle([])


def test_a_lack_of_memory_is_the_trainings_own_affair() -> None:
    def step(built: Way, way: Way) -> None:
        raise MemoryError

    first = Way("auto", "fp32")
    settled = settle_way(first, lambda way: way, step, kernels="auto", precision="auto")
    assert settled.way == first


def test_gradients_that_are_not_finite_are_a_failure() -> None:
    model = torch.nn.Linear(3, 1)
    batch = {"x": torch.zeros(2, 3)}

    def root(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (model(batch["x"]) * 0).sqrt().sum()  # 0, with a gradient of 0 / 0

    with pytest.raises(ArithmeticError, match="the gradient of weight is not finite"):
        take_step(model, batch, root, device="cpu", precision="fp32")
    assert model.weight.grad is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux puts it back")
def test_the_peak_of_a_trial_is_not_the_trainings() -> None:
    before = peak_memory_bytes()
    with unrecorded_peak():
        large = np.ones(before // 8 + 30_000_000)  # one more than there ever was
        assert large.sum() > 0
        del large
    assert peak_memory_bytes() < before + 50_000_000


def test_deberta_trains_with_kotunes_kernels(make_base, make_run, tmp_path: Path) -> None:
    """It changes its projections in place, which a packed layer once forbade."""
    folder = write_architecture("deberta", tmp_path / "base", make_base("roberta"))
    recipe = open_run(make_run("lora", "roberta")).recipe.model_dump()
    recipe |= {
        "output": str(tmp_path / "run"),
        "model": {"source": str(folder), "max_length": 32},
        "training": {"max_steps": 2, "device": "cpu", "precision": "fp32"},
    }
    run = open_run(finetune(FinetuneRecipe.model_validate(recipe), report=lambda line: None))
    assert not [one for one in run.info.signs if one.code == "fallback"]
