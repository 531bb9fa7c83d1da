"""Weights and optimizer of a model that FSDP spread over processes, gathered and spread again.

Every process calls these together; the whole stands in the first one's memory only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed import get_rank
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

GATHER = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def full_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight by its own name; empty in all processes but the first."""
    state = get_model_state_dict(model, options=GATHER)
    return {name: value.contiguous() for name, value in state.items()}


def full_optimizer(model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state by the names of the weights; empty in all but the first."""
    return get_optimizer_state_dict(model, _bare(optimizer), options=GATHER)


def load_full_weights(model: torch.nn.Module, path: Path) -> None:
    """Spread stored weights over the processes."""
    state = load_file(path) if get_rank() == 0 else {}
    set_model_state_dict(model, state, options=SPREAD)


def load_full_optimizer(model: torch.nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Spread a stored optimizer state over the processes."""
    whole = state if get_rank() == 0 else {}
    set_optimizer_state_dict(model, _bare(optimizer), whole, options=SPREAD)


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
