"""Nested training state on disk without pickle: JSON, its tensors beside it in safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

PLAIN = (bool, int, float, str, type(None))


def write_state(folder: Path, name: str, state: Any) -> None:
    """Write ``name``.json and ``name``.safetensors: dicts, lists, tuples, numbers, tensors.

    Raises TypeError on anything else, so that nothing is lost silently.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _pack(state, tensors, {})
    (folder / f"{name}.json").write_text(json.dumps(structure), encoding="utf-8")
    save_file(tensors, folder / f"{name}.safetensors")


def read_state(folder: Path, name: str) -> Any:
    """What ``write_state`` was given, every type and bit of it, on the CPU."""
    structure = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return _unpack(structure, load_file(folder / f"{name}.safetensors"))


def _pack(value: Any, tensors: dict[str, torch.Tensor], known: dict[Any, str]) -> Any:
    if isinstance(value, torch.Tensor):
        return {"tensor": _keep(value, tensors, known)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(torch.from_numpy(value), tensors, known)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        pairs = [[_pack(one, tensors, known) for one in pair] for pair in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(one, tensors, known) for one in value]}
    if isinstance(value, PLAIN):
        return value
    raise TypeError(f"training state of type {type(value).__name__} cannot be stored")


def _keep(value: torch.Tensor, tensors: dict[str, torch.Tensor], known: dict[Any, str]) -> str:
    """The name of a tensor; one that several places share is stored once."""
    place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, value.device)
    if place not in known or value.numel() == 0:
        known[place] = str(len(tensors))
        tensors[known[place]] = value.detach().cpu().contiguous()
    return known[place]


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(inner, tensors) for key, inner in content}
    items = [_unpack(one, tensors) for one in content]
    return items if kind == "list" else tuple(items)
