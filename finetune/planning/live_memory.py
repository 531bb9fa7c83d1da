"""Bytes that are alive while fake tensors run: total, peak, and what they were at the peak.

A storage counts from the operator that makes it until its last tensor is gone, which is what an
allocator without fragmentation would hold. ``torch.distributed._tools.mem_tracker`` works the
same way; it stops at the first operator that reads a value (``torch.all(mask == 1)``), knows no
workspace of bitsandbytes, and copies its books for every open module at every operator.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune.hardware.host_memory import LARGE_BLOCK_BYTES

WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS = "weights", "gradients", "optimizer", "activations"
KINDS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS)


class LiveMemory(TorchDispatchMode):
    """Counts storages by kind; what is not told to be something else is an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.live = dict.fromkeys(KINDS, 0)
        self.at_peak = dict(self.live)
        self.small = self.small_at_peak = 0  # activations in blocks below LARGE_BLOCK_BYTES
        self._entries: dict[int, tuple[int, str]] = {}
        self._workspaces: dict[Any, Callable[[Any], int]] = _workspaces()

    @property
    def peak_bytes(self) -> int:
        """The most that was alive at once."""
        return sum(self.at_peak.values())

    def forget_peak(self) -> None:
        """Begin a new peak at what is alive now."""
        self.at_peak = dict(self.live)
        self.small_at_peak = self.small

    def count(self, tensor: torch.Tensor, kind: str) -> None:
        """Take a tensor that was made elsewhere, or say what a known one is."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._entries:
            self._add(*self._entries[key], sign=-1)
        else:
            weakref.finalize(storage, self._release, key)
        self._entries[key] = storage.nbytes(), kind
        self._add(storage.nbytes(), kind)
        self._note_peak()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run the operator; its new storages are alive from here."""
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        if func is torch.ops.aten._local_scalar_dense.default:
            return _known_value(args[0])
        result = func(*args, **(kwargs or {}))
        if func in self._workspaces:
            self._note_peak(extra=self._workspaces[func](args))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._entries:
                    self.count(leaf, ACTIVATIONS)
        return result

    def _release(self, key: int) -> None:
        self._add(*self._entries.pop(key), sign=-1)

    def _add(self, size: int, kind: str, sign: int = 1) -> None:
        self.live[kind] += sign * size
        if kind == ACTIVATIONS and size < LARGE_BLOCK_BYTES:
            self.small += sign * size

    def _note_peak(self, extra: int = 0) -> None:
        if sum(self.live.values()) + extra > self.peak_bytes:
            self.at_peak = {**self.live, ACTIVATIONS: self.live[ACTIVATIONS] + extra}
            self.small_at_peak = self.small


def _known_value(scalar: Any) -> bool | int | float:
    """A fake scalar's number where it is a constant (Adam's step), else zero: not all, finite."""
    if getattr(scalar, "constant", None) is not None:
        with unset_fake_temporarily():
            return scalar.constant.item()
    if scalar.dtype.is_floating_point:
        return 0.0
    return False if scalar.dtype == torch.bool else 0


def _workspaces() -> dict[Any, Callable[[Any], int]]:
    """Memory inside one operator, which the outside never sees: operator → bytes of its args."""
    import bitsandbytes  # noqa: F401 - registers its operators

    def dequantised(args: Any) -> int:
        rows, _, shape = args[0], args[1], args[2]
        return prod(shape) * rows.element_size() + prod(shape) // 64 * 4

    gemm = getattr(torch.ops.bitsandbytes, "gemm_4bit", None)
    return {} if gemm is None else {gemm.default: dequantised}
