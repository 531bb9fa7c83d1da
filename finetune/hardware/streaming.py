"""fp32 weights that stay in the machine's memory while a GPU computes with them.

Training holds frozen weights in half and drops no original: whole, in fp32, they may need more of
a GPU than training did. Then accelerate's hooks bring each layer's weights over for as long as it
computes. The operators are the same, and so are their results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

STREAMED_FROM = 0.8  # of the training's peak: the rest is for the activations of a forward pass


def outgrows(model: torch.nn.Module, peak_bytes: int | None) -> bool:
    """Whether a model's weights in fp32 would need more of a GPU than its training did."""
    parameters = sum(one.numel() for one in model.parameters())
    return peak_bytes is not None and outgrows_peak(parameters, peak_bytes)


def outgrows_peak(parameters: int, peak_bytes: int) -> bool:
    """The same by counts."""
    return 4 * parameters > STREAMED_FROM * peak_bytes


@contextmanager
def streamed(model: torch.nn.Module, device: str) -> Iterator[None]:
    """Compute on ``device`` within the block; a model whose weights are elsewhere is streamed."""
    if next(model.parameters()).device.type == torch.device(device).type:
        yield
        return
    with weights_on_host(model, device):
        yield


@contextmanager
def weights_on_host(model: torch.nn.Module, device: str) -> Iterator[None]:
    """Bring each module's weights to ``device`` when it computes, and take them back."""
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    cpu_offload(model, execution_device=torch.device(device))
    try:
        yield
    finally:
        remove_hook_from_submodules(model)
