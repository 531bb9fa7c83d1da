"""The process's own memory: what PyTorch's CPU tensors live in."""

from __future__ import annotations

import ctypes
import sys

from finetune.recipes.methods import METHODS
from finetune.recipes.sections import Recipe

# Calibrated on glibc 2.36 with encoders of 4 x 256, 6 x 512, 12 x 768 and 24 x 1024, batches of
# 16 x 64 tokens: full, LoRA and QLoRA, fp32 and bf16 (kotune bench plan). PyTorch asks malloc for
# aligned blocks, so that a freed block seldom serves the next request of its own size; activations
# leave holes as large as this share of themselves. The rest is code and buffers that libraries
# load with the first step.
HOLES_SHARE = 0.4
HOLES_SHARE_FP32_ADAPTERS = 1.05
FIRST_STEP_BYTES = 62 << 20
FIRST_STEP_FP32_BYTES = 31 << 20
LARGE_BLOCK_BYTES = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_FAST_THRESHOLD_BYTES = 32 << 20  # where glibc's own thresholds end up, the other at twice it
_TRIM_BYTES = 128 << 10  # glibc's default


def give_back_free_memory() -> None:
    """Return what loading has freed to the system (malloc_trim(3)); nothing but on glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_compact(compact: bool) -> None:
    """Have every block of 1 MiB and more mapped by itself, or not; nothing but on glibc.

    A mapped block goes back to the system when it is freed and leaves no hole; its pages are
    zeroed at every use, which is the price.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES if compact else _FAST_THRESHOLD_BYTES)
            set_option(_M_TRIM_THRESHOLD, _TRIM_BYTES if compact else 2 * _FAST_THRESHOLD_BYTES)


def allocator_bytes(activations_bytes: int, *, plain_adapters: bool, precision: str) -> int:
    """What the process grows by beyond its tensors; of compact memory, ask for small blocks.

    ``plain_adapters``: PEFT's own layers, beside matrices that are not packed.
    """
    wide = plain_adapters and precision == "fp32"
    share = HOLES_SHARE_FP32_ADAPTERS if wide else HOLES_SHARE
    first_step = FIRST_STEP_FP32_BYTES if precision == "fp32" else FIRST_STEP_BYTES
    return first_step + int(share * activations_bytes)


def shape_memory(recipe: Recipe, device: str) -> None:
    """Have this process's malloc do what the recipe asks, before the model is built."""
    if device == "cpu":
        keep_compact(wants_compact_memory(recipe))


def wants_compact_memory(recipe: Recipe) -> bool:
    """Whether a CPU run gives time for memory: ``auto`` is yes where the recipe does so anyway."""
    asked = recipe.training.cpu_memory
    if asked == "auto":
        return recipe.training.gradient_checkpointing or METHODS[recipe.method].quantised
    return asked == "compact"
