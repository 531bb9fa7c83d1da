"""Checkpoints on disk: whole or not there, hashed, found again, the old ones removed.

    checkpoint-120/
        checkpoint.json          written last: step, finished, ledger, SHA-256 of every file
        weights.safetensors      what is trained: adapter and head, or the whole model
        best.safetensors         the same of the best evaluation so far (a hard link)
        optimizer.json, .safetensors     optimizer, schedule and gradient scaler
        AllocateRanks.json, .safetensors     adalora's importance scores
        process-0.json, .safetensors     one process's random numbers and running loss
        trainer_state.json       Trainer's own: step, logs, best metric, early stopping

A folder is written under a name that starts with a dot, then renamed. Nested state is stored
without pickle: as JSON, its tensors beside it in safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from finetune.core.errors import FolderError
from finetune.core.files import read_json, sha256_file, write_json

SCHEMA = "kotune.checkpoint/1"
MANIFEST = "checkpoint.json"
KEPT = 2  # the newest may be torn by a failing disk; then there is one more
PLAIN = (bool, int, float, str, type(None))
Report = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; ``ledger`` is what the run keeps of itself across restarts."""

    folder: Path
    step: int
    finished: bool
    ledger: dict[str, Any]


def begin_checkpoint(root: Path, step: int) -> Path:
    """The empty folder to write to; what an earlier attempt left there is removed."""
    folder = unfinished_folder(root, step)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def unfinished_folder(root: Path, step: int) -> Path:
    """Where a checkpoint is written before it is published."""
    return root / f".writing-{step}"


def publish_checkpoint(root: Path, step: int, *, finished: bool, ledger: dict[str, Any]) -> Path:
    """Hash what was written, name it ``checkpoint-<step>``, remove all but the newest."""
    folder = unfinished_folder(root, step)
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    for name in files:
        _to_disk(folder / name)
    content = {"step": step, "finished": finished, "ledger": ledger, "files": files}
    write_json(folder / MANIFEST, SCHEMA, content)
    _to_disk(folder)
    target = root / f"checkpoint-{step}"
    _remove(target)  # a torn one, or the same step saved again
    os.replace(folder, target)
    _to_disk(root)
    for old in _numbered(root)[KEPT:]:
        _remove(old)
    for leftover in root.glob(".*-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def last_checkpoint(root: Path, report: Report = lambda line: None) -> Checkpoint | None:
    """The newest whole checkpoint under ``root``; torn ones are told of and passed over."""
    for folder in _numbered(root):
        try:
            return read_checkpoint(folder)
        except FolderError as fault:
            why = " ".join(str(fault).split())
            report(f"  {folder.name} is not whole and is passed over: {why}")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check a checkpoint, hashes included; raises FolderError where it is torn."""
    content = read_json(folder / MANIFEST, SCHEMA)
    try:
        files, step = content["files"], content["step"]
        for name, expected in files.items():
            if sha256_file(folder / name) != expected:
                raise FolderError(f"{name} is damaged", received=folder)
        return Checkpoint(folder, step, content["finished"], content["ledger"])
    except (KeyError, AttributeError, OSError) as fault:
        raise FolderError("a part is missing", received=fault) from fault


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """A full disk or a read-only folder as a FolderError that says what is still there."""
    try:
        yield
    except (OSError, SafetensorError) as fault:
        kept = [folder.name for folder in _numbered(root)]
        raise FolderError(
            "the training's state cannot be written",
            received=f"{root}: {getattr(fault, 'strerror', None) or fault}",
            allowed="a folder that can be written to, with room for three checkpoints",
            next_step="make room, then the same command"
            + (f"; it goes on from {kept[0]}" if kept else ""),
        ) from fault


def _numbered(root: Path) -> list[Path]:
    """Published checkpoints, newest first."""
    found = [
        path
        for path in root.glob("checkpoint-*")
        if path.is_dir() and path.name.rpartition("-")[2].isdigit()
    ]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _remove(folder: Path) -> None:
    """Remove a folder so that a half-removed one is never taken for a checkpoint."""
    if folder.exists():
        leaving = folder.with_name(f".removing-{folder.name}")
        shutil.rmtree(leaving, ignore_errors=True)
        os.replace(folder, leaving)
        shutil.rmtree(leaving)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
