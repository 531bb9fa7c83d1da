"""Device and precision from the hardware, or as asked."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from finetune.core.errors import RecipeError
from finetune.core.exactness import pin_environment
from finetune.core.provenance import cpu_has_bf16

CACHED_PRIMITIVES = 128
PRODUCTS = ("matmul", "conv", "rnn")


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
        if asked == "bf16" and not native:  # PyTorch would emulate it, slower than fp32
            raise RecipeError(
                "training.precision=bf16 needs a GPU of 2020 or later (Ampere)",
                received=torch.cuda.get_device_name(),
                allowed="auto, fp16, fp32 on this GPU",
            )
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


@contextlib.contextmanager
def exact_fp32() -> Iterator[None]:
    """``pin_fp32`` within the block; PyTorch's switches are put back afterwards."""
    pin_environment(too_late="torch" in sys.modules)
    before = _Switches()
    pin_fp32()
    try:
        yield
    finally:
        before.put_back()


def pin_fp32() -> None:
    """Have products of fp32 computed in fp32, whatever the processor or the caller allows.

    cuDNN's convolutions take TF32 by default; cuBLAS and oneDNN take TF32 or bf16 where
    ``torch.set_float32_matmul_precision`` or the environment lets them. Raises KotuneError where
    PyTorch has read the environment already.
    """
    pin_environment(too_late="torch" in sys.modules)
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for switch, _ in _Switches().single:
        switch.fp32_precision = "ieee"


@contextlib.contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Within the block, products of fp32 on a GPU in TF32 where that is ``wanted``.

    NVIDIA_TF32_OVERRIDE=0, read when CUDA starts, has to be gone by then.
    """
    if not wanted:
        yield
        return
    import torch

    before = _Switches()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True  # since 2.9 this sets the single ones too
    try:
        yield
    finally:
        before.put_back()


class _Switches:
    """PyTorch's switches of fp32 products: for all at once, and since 2.9 one by one."""

    def __init__(self) -> None:
        from torch import backends, get_float32_matmul_precision

        self.matmul = self.cudnn = None
        with contextlib.suppress(RuntimeError):  # PyTorch's, where single ones differ
            self.matmul = get_float32_matmul_precision()
        with contextlib.suppress(RuntimeError):
            self.cudnn = backends.cudnn.allow_tf32
        kinds = (backends.cuda, backends.cudnn, backends.mkldnn)
        products = (getattr(kind, name, None) for kind in kinds for name in PRODUCTS)
        holders = (backends, *kinds, *products)  # the outer ones first: they set the inner
        self.single = [(one, one.fp32_precision) for one in holders if _is_switch(one)]

    def put_back(self) -> None:
        """Set what was read."""
        import torch

        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None:
            torch.backends.cudnn.allow_tf32 = self.cudnn
        for one, value in self.single:
            one.fp32_precision = value


def _is_switch(holder: object) -> bool:
    return hasattr(holder, "fp32_precision")


def bound_primitive_caches() -> None:
    """Keep oneDNN from holding compiled primitives for every batch shape it ever met.

    In bf16 on a CPU each new length of a batch adds primitives, some megabytes a step, up to
    1,024 in each of two caches: gigabytes over a training with dynamic padding. Batches grouped
    by length meet the same few shapes in a row. Read once, at oneDNN's first use; what the
    environment says already stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(CACHED_PRIMITIVES))
