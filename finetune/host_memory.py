"""The process's own memory: what PyTorch's CPU tensors live in."""

from __future__ import annotations

import ctypes
import sys

# Calibrated on glibc 2.36 with encoders of 4 x 256, 6 x 512 and 12 x 768, batches of 16 x 64
# tokens: full, LoRA and QLoRA, fp32 and bf16. PyTorch asks malloc for aligned blocks, so that a
# freed block seldom serves the next request of its own size; activations leave holes as large as
# this share of themselves. The rest is code and buffers that libraries load with the first step.
HOLES_SHARE = 0.5
HOLES_SHARE_FP32_ADAPTERS = 1.05
FIRST_STEP_BYTES = 70 << 20


def give_back_free_memory() -> None:
    """Return what loading has freed to the system (malloc_trim(3)); nothing but on glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def allocator_bytes(activations_bytes: int, *, adapters: bool, precision: str) -> int:
    """What the process grows by beyond its tensors."""
    wide = adapters and precision == "fp32"
    share = HOLES_SHARE_FP32_ADAPTERS if wide else HOLES_SHARE
    return FIRST_STEP_BYTES + int(share * activations_bytes)
