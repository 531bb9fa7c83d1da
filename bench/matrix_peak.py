"""The matrix products of a training step: how many operations, and how fast they could go.

The peak is measured, not looked up: each product of the step by itself, with operands of the
same shape and type, on the same machine and threads, in the same run.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Product = tuple[str, tuple[int, ...], tuple[int, ...], torch.dtype]
KINDS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1)}
MINIMUM_SHARE = 0.01  # of all operations; rarer products are left out of the peak


class _Products(TorchDispatchMode):
    """Counts products by their operands' shapes and type."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Note a product, run it."""
        places = KINDS.get(func.overloadpacket.__name__) if func.namespace == "aten" else None
        if places is not None:
            left, right = (args[place] for place in places)
            self.seen[
                (
                    "bmm" if left.dim() == 3 else "mm",
                    tuple(left.shape),
                    tuple(right.shape),
                    left.dtype,
                )
            ] += 1
        return func(*args, **(kwargs or {}))


def step_flops(trainer: Any, inputs: dict[str, Any]) -> tuple[int, Counter[Product]]:
    """Operations of one forward and backward pass over ``inputs``, and its products."""
    products = _Products()
    counter = FlopCounterMode(display=False)
    model = trainer.model.train()
    with products, counter:
        with trainer.compute_loss_context_manager():
            loss = model(**inputs).logits.float().sum()
        loss.backward()
    model.zero_grad()
    return counter.get_total_flops(), products.seen


def matrix_peak(products: Counter[Product], seconds: float) -> dict[str, Any]:
    """Operations a second of the step's products alone, each repeated for its share of time."""
    flops = {product: count * _flops(product) for product, count in products.items()}
    total = sum(flops.values())
    chosen = {product: value for product, value in flops.items() if value >= MINIMUM_SHARE * total}
    spent = 0.0
    for product, value in chosen.items():
        rate = _rate(product, seconds * value / total)
        spent += value / rate
    covered = sum(chosen.values())
    return {
        "flops_per_s": covered / spent,
        "products": len(chosen),
        "covered_share": covered / total,
    }


def _flops(product: Product) -> int:
    _, left, right, _ = product
    batch = left[0] if len(left) == 3 else 1
    return 2 * batch * left[-2] * left[-1] * right[-1]


def _rate(product: Product, seconds: float) -> float:
    """Operations a second of one product, the best of its repetitions being the peak."""
    kind, left, right, dtype = product
    one, other = torch.randn(left).to(dtype), torch.randn(right).to(dtype)
    multiply = torch.bmm if kind == "bmm" else torch.mm
    multiply(one, other)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds or best == float("inf"):
        start = time.perf_counter()
        multiply(one, other)
        best = min(best, time.perf_counter() - start)
    return _flops(product) / best
