"""What only a GPU run needs: TF32 switched on or off for all libraries, torch.compile, IOBinding.

PyTorch and ONNX Runtime are timed alike: text in, class id on the host out. Copies to the device
and back are inside, and reading the class id waits for the device in both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}  # all other precisions compute in float32


def fix_tf32(precision: str, device: str) -> None:
    """Keep TF32 out of ``fp32`` for cuBLAS and cuDNN, whoever calls them; before CUDA starts.

    ONNX Runtime's CUDA provider uses TF32 unless told otherwise, PyTorch does not
    (NVIDIA_TF32_OVERRIDE, cuBLAS documentation).
    """
    if device.startswith("cuda"):
        os.environ["NVIDIA_TF32_OVERRIDE"] = "1" if precision == "tf32" else "0"


def torch_dtype(precision: str) -> Any:
    """The dtype of weights: bfloat16, float16, or float32 for all else."""
    import torch

    return getattr(torch, DTYPES.get(precision, "float32"))


def set_torch_precision(precision: str) -> None:
    """Let PyTorch's float32 products run in TF32 where the variant says so."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def compile_model(model: Any) -> Any:
    """``torch.compile`` for any length: reviews differ in it, and one graph has to serve all."""
    import torch

    return torch.compile(model, dynamic=True)


class BoundSession:
    """An ONNX Runtime session that is run by IOBinding: inputs and outputs live on the device.

    The copies are made here and waited for, so that a timing around ``run`` holds them.
    """

    def __init__(self, session: Any, device: str) -> None:
        self._session = session
        kind, _, index = device.partition(":")
        self._kind, self._index = kind, int(index or 0)

    def get_inputs(self) -> list[Any]:
        """The graph's inputs."""
        return self._session.get_inputs()

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs on the host, as InferenceSession.run gives them."""
        import onnxruntime

        binding = self._session.io_binding()
        for name, value in feed.items():
            given = onnxruntime.OrtValue.ortvalue_from_numpy(value, self._kind, self._index)
            binding.bind_ortvalue_input(name, given)
        for name in names:
            binding.bind_output(name, self._kind, self._index)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.copy_outputs_to_cpu()
