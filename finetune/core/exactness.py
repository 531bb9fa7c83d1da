"""Variables by which the environment has libraries compute fp32 in less, and what keeps it exact.

oneDNN (PyTorch's and OpenVINO's) reads its own when it is loaded, cuBLAS and cuDNN when CUDA
starts: an entry point sets them before it imports anything heavy.
"""

from __future__ import annotations

import os

from finetune.core.errors import KotuneError

FPMATH = (
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",  # its older name, set in images for arm64 servers
)
EXACT = "STRICT"
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
EXACT_ENVIRONMENT = {**dict.fromkeys(FPMATH, EXACT), TF32_OVERRIDE: "0"}


def pin_environment(*, too_late: bool) -> None:
    """Set the variables, for this process and those it starts.

    Raises KotuneError where it is ``too_late``: oneDNN is loaded and was told otherwise.
    """
    told = {name: os.environ[name] for name in FPMATH if os.environ.get(name, EXACT) != EXACT}
    if too_late and told:
        named = ", ".join(f"{name}={value}" for name, value in told.items())
        raise KotuneError(
            "PyTorch was loaded in an environment that lets it compute fp32 in less",
            received=named,
            allowed=EXACT,
            next_step=f"unset {' '.join(told)} before importing torch",
        )
    os.environ.update(EXACT_ENVIRONMENT)
