"""Out of memory: the micro-batch shrinks, the optimizer steps stay what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.roberta.modeling_roberta import RobertaModel

from finetune.core.errors import KotuneError
from finetune.loop.ledger import BatchShape, is_out_of_memory
from finetune.loop.out_of_memory import ways_out
from finetune.loop.row_order import EpochOrder
from finetune.recipes.text import AdapterSection, FinetuneRecipe
from finetune.run_folder import open_run
from finetune.training import finetune

FAULTS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "python": MemoryError(),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "runtime": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"),
    "driver": RuntimeError("CUDA driver error: out of memory"),
}


def recipe_for(make_run, folder: Path, **training) -> FinetuneRecipe:
    recipe = open_run(make_run("lora", "roberta")).recipe
    section = {**recipe.training.model_dump(), "max_steps": 12, "logging_steps": 1, **training}
    model = {**recipe.model.model_dump(), "dropout": 0.0}
    content = {**recipe.model_dump(), "training": section, "model": model, "output": str(folder)}
    return FinetuneRecipe.model_validate(content)


def starve(monkeypatch, fault: BaseException, rows: int, after_calls: int, training: bool) -> None:
    """From a forward pass on, every larger batch runs out of memory, in the middle of the model."""
    forward, calls = RobertaModel.forward, []

    def limited(self, input_ids, *args, **kwargs):
        if self.training == training:
            calls.append(len(input_ids))
            if len(calls) > after_calls and len(input_ids) > rows:
                raise fault
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(RobertaModel, "forward", limited)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_it_goes_on_from_the_same_step_with_smaller_batches(
    make_run, tmp_path: Path, monkeypatch, kind: str
) -> None:
    small = finetune(
        recipe_for(make_run, tmp_path / "small", batch_size=4, gradient_accumulation_steps=4),
        report=lambda line: None,
    )
    lines: list[str] = []
    starve(monkeypatch, FAULTS[kind], rows=4, after_calls=8, training=True)  # a trial first
    large = finetune(recipe_for(make_run, tmp_path / "large", batch_size=16), report=lines.append)
    told = [line for line in lines if "out of memory" in line]
    assert "step 8 with 16 rows at once: going on with 8 rows, 2 times a step" in told[0]
    assert "step 8 with 8 rows at once: going on with 4 rows, 4 times a step" in told[1]

    course = json.loads((large / "run.json").read_text("utf-8"))["training"]
    assert [one["after_step"] for one in course["out_of_memory"]] == [7, 7]
    assert (course["micro_batch"], course["gradient_accumulation_steps"]) == (4, 4)
    provenance = json.loads((large / "provenance.json").read_text("utf-8"))
    assert provenance["training"] == course

    weights = [load_file(run / "model" / "adapter_model.safetensors") for run in (small, large)]
    for name, value in weights[0].items():
        # sums in another order, and AdamW divides by their size: a twentieth of what a step moves
        torch.testing.assert_close(weights[1][name], value, atol=2.5e-4, rtol=1e-3)
    losses = [
        [row["loss"] for row in json.loads((run / "metrics.json").read_text())["history"]]
        for run in (small, large)
    ]
    assert len(losses[0]) == 12
    torch.testing.assert_close(*map(torch.tensor, losses), atol=2e-4, rtol=0)


def test_evaluation_shrinks_too(make_run, tmp_path: Path, monkeypatch) -> None:
    enough = finetune(recipe_for(make_run, tmp_path / "enough"), report=lambda line: None)
    starve(monkeypatch, FAULTS["python"], rows=10, after_calls=0, training=False)
    tight = finetune(recipe_for(make_run, tmp_path / "tight"), report=lambda line: None)
    figures = [json.loads((run / "metrics.json").read_text()) for run in (enough, tight)]
    tables = [one["validation"]["all"]["confusion"] for one in figures]
    assert tables[0] == tables[1]


def test_one_row_too_much_is_an_error_with_a_way_out(make_run, tmp_path, monkeypatch) -> None:
    starve(monkeypatch, FAULTS["cpu"], rows=0, after_calls=0, training=True)
    with pytest.raises(KotuneError, match=r"(?s)micro-batch of one row.*gradient_checkpointing"):
        finetune(recipe_for(make_run, tmp_path / "run", batch_size=4), report=lambda line: None)


def test_memory_that_ends_in_the_update_is_told_with_ways_out(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    """Adam's states are made in the first update: no smaller micro-batch would help."""

    recipe = recipe_for(make_run, tmp_path / "run")

    def no_room(self, closure=None):
        raise FAULTS["driver"]

    monkeypatch.setattr(torch.optim.AdamW, "step", no_room)
    with pytest.raises(KotuneError) as caught:
        finetune(recipe, report=lambda line: None)
    assert caught.value.what == "out of memory in the optimizer's update of step 1"
    assert caught.value.received == str(FAULTS["driver"])
    for way in ("adamw_8bit", "method=qlora", "gradient_checkpointing=true", "--memory free"):
        assert way in caught.value.next_step
    assert "method=lora" not in caught.value.next_step  # it is one


def test_memory_that_ends_while_the_model_is_built_is_told(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    recipe = recipe_for(make_run, tmp_path / "run")

    def no_room(*args, **kwargs):
        raise FAULTS["runtime"]

    monkeypatch.setattr("finetune.tasks.text.job.adapt_model", no_room)
    with pytest.raises(KotuneError, match=r"(?s)while the model was built.*CUDA error.*qlora"):
        finetune(recipe, report=lambda line: None)
    full = recipe.model_copy(update={"adapter": AdapterSection(method="full")})
    assert "method=lora; adapter.method=qlora" in ways_out(full)


def test_memory_that_ends_in_the_last_predictions_keeps_the_training(
    make_run, tmp_path: Path, monkeypatch
) -> None:
    recipe, lines = recipe_for(make_run, tmp_path / "run", max_steps=3), []

    def no_room(*args, **kwargs):
        raise FAULTS["cublas"]

    with monkeypatch.context() as patched:
        patched.setattr("finetune.tasks.text.task.predict_splits", no_room)
        with pytest.raises(KotuneError, match="in the final predictions; the training itself is"):
            finetune(recipe, report=lines.append)
    run = finetune(recipe, report=lines.append)
    told = json.loads((run / "run.json").read_text("utf-8"))
    assert (told["training"]["starts"], told["steps"]) == (1, 3)  # it was not trained again


def test_another_fault_is_not_mistaken_for_it(make_run, tmp_path, monkeypatch) -> None:
    starve(monkeypatch, RuntimeError("shapes differ"), rows=0, after_calls=2, training=True)
    with pytest.raises(RuntimeError, match="shapes differ"):
        finetune(recipe_for(make_run, tmp_path / "run"), report=lambda line: None)
    assert not any(is_out_of_memory(one) for one in (ValueError("x"), RuntimeError("x")))
    assert all(is_out_of_memory(one) for one in FAULTS.values())


def test_the_effective_batch_is_kept_where_it_does_not_halve() -> None:
    assert BatchShape(16, 1).halved() == BatchShape(8, 2)
    assert BatchShape(9, 2).halved() == BatchShape(3, 6)
    assert BatchShape(7, 1).halved() == BatchShape(1, 7)
    assert BatchShape(12, 1).halved(processes=4) == BatchShape(4, 3)
    with pytest.raises(KotuneError, match="one row"):
        BatchShape(1, 16).halved()


def test_the_order_knows_epoch_and_effective_batch_alone() -> None:
    lengths = torch.randint(3, 40, (50,), generator=torch.Generator().manual_seed(1)).tolist()

    def order(micro: int, epoch: int, blank: int | None = None) -> list[int]:
        rows = EpochOrder(
            lengths,
            effective_batch=16,
            micro_batch=micro,
            seed=4,
            group_by_length=True,
            blank_row=blank,
        )
        rows.set_epoch(epoch)
        return list(rows)

    assert sorted(order(16, 0)) == list(range(50))
    assert order(16, 1) == order(4, 1) != order(16, 0)
    assert order(16, 1, blank=50) == [*order(16, 1), *[50] * 14]
