"""What only a GPU run needs: TF32 switched on or off for all libraries, torch.compile.

PyTorch and ONNX Runtime are timed alike: text in, class id on the host out. Copies to the device
and back are inside (IOBinding, ``export/runtime/classifier.py``), and reading the class id waits
for the device in both.
"""

from __future__ import annotations

import os
from typing import Any

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}  # all other precisions compute in float32


def fix_tf32(precision: str, device: str) -> None:
    """Keep TF32 out of ``fp32`` for cuBLAS and cuDNN, whoever calls them; before CUDA starts.

    ONNX Runtime's CUDA provider uses TF32 unless told otherwise, PyTorch does not
    (NVIDIA_TF32_OVERRIDE, cuBLAS documentation).
    """
    if device.startswith("cuda"):
        os.environ["NVIDIA_TF32_OVERRIDE"] = "1" if precision == "tf32" else "0"


def torch_dtype(precision: str) -> Any:
    """The dtype of weights, and of what is computed with NF4 ones: a half, else float32."""
    import torch

    return getattr(torch, DTYPES.get(precision.removeprefix("nf4-"), "float32"))


def set_torch_precision(precision: str) -> None:
    """Let PyTorch's float32 products run in TF32 where the variant says so, and nowhere else."""
    import torch

    from finetune.hardware.precision import pin_fp32

    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    else:
        pin_fp32()


def compile_model(model: Any) -> Any:
    """``torch.compile`` for any length: reviews differ in it, and one graph has to serve all."""
    import torch

    return torch.compile(model, dynamic=True)
