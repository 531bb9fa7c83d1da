"""The matrix products of a training step: how many operations, and how fast they could go.

The peak is measured, not looked up: each product of the step by itself, with operands of the
same shape and type, on the same device and threads, in the same run.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[int, ...]
Product = tuple[str, Shape, Shape, torch.dtype, str]  # kind, operands, type, device
OPERANDS = {  # operator → what it multiplies: an operand's place, or the place of (out, in)
    "aten::mm": (0, 1, None),
    "aten::addmm": (1, 2, None),
    "aten::addmm_": (1, 2, None),
    "aten::bmm": (0, 1, None),
    "mkldnn::_linear_pointwise": (0, None, 1),
    "bitsandbytes::gemm_4bit": (0, None, 2),
}
CALLS = 10  # on a GPU, between two looks at the clock
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
        product = _product(func, args)
        if product is not None:
            self.seen[product] += 1
        return func(*args, **(kwargs or {}))


def _product(func: Any, args: tuple) -> Product | None:
    """What an operator multiplies; None where it is no matrix product."""
    places = OPERANDS.get(func.overloadpacket._qualified_op_name)
    if places is None:
        return None
    left, right, weight = places
    one, where = tuple(args[left].shape), (args[left].dtype, str(args[left].device))
    if weight is None:
        return "bmm" if len(one) == 3 else "mm", one, tuple(args[right].shape), *where
    shape = args[weight]
    rows, columns = shape.shape if isinstance(shape, torch.Tensor) else shape
    return "mm", (args[left].numel() // columns, columns), (columns, rows), *where


def step_flops(trainer: Any, inputs: dict[str, Any]) -> tuple[int, Counter[Product]]:
    """Operations of the products in one forward and backward pass over ``inputs``, and these."""
    products = _Products()
    model = trainer.model.train()
    with products:
        with trainer.compute_loss_context_manager():
            loss = model(**inputs).logits.float().sum()
        loss.backward()
    model.zero_grad()
    return sum(count * _flops(one) for one, count in products.seen.items()), products.seen


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
    _, left, right, _, _ = product
    batch = left[0] if len(left) == 3 else 1
    return 2 * batch * left[-2] * left[-1] * right[-1]


def _rate(product: Product, seconds: float) -> float:
    """Operations a second of one product, the best of its repetitions being the peak.

    A GPU is waited for once in CALLS products, since waiting takes as long as a small one.
    """
    kind, left, right, dtype, device = product
    one = torch.randn(left, device=device).to(dtype)
    other = torch.randn(right, device=device).to(dtype)
    multiply = torch.bmm if kind == "bmm" else torch.mm
    on_gpu = torch.device(device).type == "cuda"
    wait, calls = (torch.cuda.synchronize, CALLS) if on_gpu else (lambda: None, 1)
    multiply(one, other)
    wait()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds or best == float("inf"):
        start = time.perf_counter()
        for _ in range(calls):
            multiply(one, other)
        wait()
        best = min(best, (time.perf_counter() - start) / calls)
    return _flops(product) / best
