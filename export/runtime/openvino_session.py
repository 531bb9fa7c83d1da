"""An OpenVINO model behind the few methods of an ONNX Runtime session that the runtime calls.

Shipped with the runtime: imports the standard library and numpy, and openvino when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


class OpenVinoSession:
    """A compiled model on the CPU with ``threads`` threads, one request at a time.

    The file says in which precision it wants to be run (``kotune/inference_precision``).
    Raises ModuleNotFoundError where openvino is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if model.has_rt_info(["kotune", "inference_precision"]):
            wanted = model.get_rt_info(["kotune", "inference_precision"])
            options["INFERENCE_PRECISION_HINT"] = str(getattr(wanted, "value", wanted))
        compiled = core.compile_model(model, "CPU", options)
        self._inputs = [SimpleNamespace(name=port.any_name) for port in compiled.inputs]
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[SimpleNamespace]:
        """The inputs, each with its ``name``."""
        return self._inputs

    def run(self, names: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs, float32."""
        self._request.infer(feed, share_inputs=True)
        return [np.array(self._request.get_tensor(name).data, dtype=np.float32) for name in names]
