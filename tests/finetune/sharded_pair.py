"""FSDP over two CPU processes, as far as accelerate is not needed: gather, store, spread again."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSequenceClassification

from finetune.core.processes import join_processes, leave_processes
from finetune.loop.checkpoints import read_state, write_state
from finetune.loop.resumable import (
    full_optimizer,
    full_weights,
    load_full_optimizer,
    load_full_weights,
)


def check_round_trip(base: Path, folder: Path) -> None:
    """Two steps in a row equal one step, a round trip through files, and another step."""
    join_processes("cpu")
    rank = torch.distributed.get_rank()
    model, optimizer = _sharded(base)
    _step(model, optimizer, rank)
    weights, state = full_weights(model), full_optimizer(model, optimizer)
    if rank == 0:
        save_file(weights, folder / "weights.safetensors")
        write_state(folder, "optimizer", state)
    torch.distributed.barrier()
    _step(model, optimizer, rank)
    expected = full_weights(model)

    again, second = _sharded(base)
    load_full_weights(again, folder / "weights.safetensors")
    load_full_optimizer(again, second, read_state(folder, "optimizer"))
    _step(again, second, rank)
    found = full_weights(again)
    assert found.keys() == expected.keys()
    if rank == 0:
        plain = AutoModelForSequenceClassification.from_pretrained(base)
        assert found.keys() >= dict(plain.named_parameters()).keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert any(not torch.equal(found[name], weights[name]) for name in expected)
        print("round trip done", flush=True)
    leave_processes()


def _sharded(base: Path) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    model.eval()  # no dropout: both attempts have to agree
    for layer in model.base_model.encoder.layer:
        fully_shard(layer)
    fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    ids = torch.arange(5, 21).reshape(2, 8) + rank
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
