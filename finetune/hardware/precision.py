"""Device and precision from the hardware, or as asked."""

from __future__ import annotations

import os

from finetune.core.errors import RecipeError
from finetune.core.provenance import cpu_has_bf16

CACHED_PRIMITIVES = 128


def choose_device(asked: str) -> str:
    """``cpu`` or ``cuda``; raises RecipeError where CUDA is asked for and absent."""
    import torch

    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise RecipeError("training.device=cuda, and PyTorch sees no GPU", next_step="device=cpu")
    return "cuda" if available and asked != "cpu" else "cpu"


def choose_precision(asked: str, device: str) -> str:
    """``fp32``, ``bf16`` or ``fp16``: bf16 wherever the hardware multiplies it.

    Raises RecipeError for a precision the device does not have.
    """
    import torch

    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16" if native else "fp16") if asked == "auto" else asked
    if asked == "fp16":
        raise RecipeError(
            "training.precision=fp16 needs CUDA", allowed="auto, bf16, fp32 on this machine"
        )
    if asked == "auto":
        return "bf16" if cpu_has_bf16() else "fp32"
    return asked


def precision_arguments(precision: str) -> dict[str, bool]:
    """``bf16`` and ``fp16`` for TrainingArguments, and what it reads in the environment.

    Where neither is asked it takes ACCELERATE_MIXED_PRECISION, in which the last training of this
    process, in another precision perhaps, has left its own.
    """
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    return {"bf16": precision == "bf16", "fp16": precision == "fp16"}


def bound_primitive_caches() -> None:
    """Keep oneDNN from holding compiled primitives for every batch shape it ever met.

    In bf16 on a CPU each new length of a batch adds primitives, some megabytes a step, up to
    1,024 in each of two caches: gigabytes over a training with dynamic padding. Batches grouped
    by length meet the same few shapes in a row. Read once, at oneDNN's first use; what the
    environment says already stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(CACHED_PRIMITIVES))
