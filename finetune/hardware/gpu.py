"""A GPU: which one is used, why one that is there is not, and how its memory is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from finetune.core.processes import process_count

DRIVER = Path("/proc/driver/nvidia/version")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # since torch 2.9, and before


def placement(device: str) -> str | int:
    """``device`` for a ``device_map``: accelerate wants the number of this process's GPU."""
    import torch

    return torch.cuda.current_device() if device == "cuda" else device


def keep_to_one_gpu(arguments: Any) -> Any:
    """TrainingArguments by which Trainer wraps no model in DataParallel.

    It would on every host with several GPUs: batches and losses multiplied by their number, and
    of planned batches, which are no rows, all but the first taken apart.
    """
    assert arguments.device is not None  # asking sets the number
    arguments._n_gpu = min(arguments._n_gpu, 1)
    return arguments


def let_segments_grow() -> None:
    """Have PyTorch's allocator map memory page by page: no holes between blocks of other sizes.

    Read when CUDA starts; what the environment says already stays. Linux only.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[1]] = "expandable_segments:True"


def gpu_notes(asked: str, device: str) -> list[str]:
    """What to know of the machine's GPUs before a training on ``device``, where ``asked`` is auto
    or a name."""
    if device == "cuda":
        return several_gpus_note()
    reason = unusable_gpu() if asked == "auto" else None
    return [f"training on the CPU: {reason}"] if reason else []


def several_gpus_note() -> list[str]:
    """That one GPU of several is used, and how all are."""
    import torch

    count = torch.cuda.device_count()
    if count < 2 or process_count() > 1:
        return []
    return [f"training on one of {count} GPUs: --launch {count} trains on all of them"]


def unusable_gpu() -> str | None:
    """Why PyTorch does not see the NVIDIA GPU whose driver is here; None where all is well."""
    import torch

    if torch.cuda.is_available() or not DRIVER.exists():
        return None
    found = "there is an NVIDIA driver, and PyTorch sees no GPU"
    if torch.version.cuda is None:
        return f"{found}: this PyTorch ({torch.__version__}) is built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as fault:
        return f"{found} ({str(fault).splitlines()[0]}); it is built for CUDA {torch.version.cuda}"
    return f"{found}; CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}"


def free_vram_bytes() -> int:
    """What can be taken of the GPU's memory now, this process's own CUDA context left out."""
    import torch

    return torch.cuda.mem_get_info()[0]
