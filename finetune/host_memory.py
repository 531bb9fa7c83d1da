"""The process's own memory: what PyTorch's CPU tensors live in."""

from __future__ import annotations

import ctypes
import sys

# Calibrated on glibc 2.36 with models of 6 x 512 and 2 x 64, batches of 16 x 64 tokens. PyTorch
# asks for aligned blocks, so that a freed block seldom serves the next request of its size:
# activations leave holes as large as this share of themselves. The rest is code and buffers of
# libraries that load with the first step.
HOLES_SHARE = 0.8
FIRST_STEP_BYTES = 50 << 20


def give_back_free_memory() -> None:
    """Return what loading has freed to the system (malloc_trim(3)); nothing but on glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def allocator_bytes(activations_bytes: int) -> int:
    """What the process grows by beyond its tensors."""
    return FIRST_STEP_BYTES + int(HOLES_SHARE * activations_bytes)
