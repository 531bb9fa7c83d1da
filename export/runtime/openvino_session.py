"""An OpenVINO model behind the few methods of an ONNX Runtime session that the runtime calls.

Shipped with the runtime: imports the standard library and numpy, and openvino when asked.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np

from export.runtime.arithmetic import HINTS, PRECISIONS, RT_INFO, openvino_options
from export.runtime.manifest import ArtifactError

_CORES: dict[int, Any] = {}  # process → its OpenVINO; of a fork, the parent's stays untouched


def openvino_core() -> Any:
    """This process's one OpenVINO, which is never freed.

    Its CPU plugin gives the thread that loads it a stack for signals (sigaltstack(2)) and, freed,
    puts back the one it found. Of two that are freed in the order they were made, the second
    puts back the first's, which is gone: the next signal, such as Ctrl-C, is a segmentation
    fault (seen with OpenVINO 2026.4). Raises ModuleNotFoundError where openvino is missing.
    """
    import openvino

    process = os.getpid()
    if process not in _CORES:
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
        _CORES[process] = core
    return _CORES[process]


class OpenVinoSession:
    """A compiled model on the CPU with ``threads`` threads, for any number of callers at a time.

    An infer request holds one caller's tensors, so each call takes one that is free, or a new
    one: there are as many as there were simultaneous calls. It runs in the precision that the
    file names and the manifest ``stated`` (fp32, bf16, fp16), in fp32 where neither does;
    ``executed`` is what the plugin made of it. Raises ArtifactError where the two disagree or
    fp32 is not kept, ModuleNotFoundError where openvino is missing.
    """

    def __init__(self, path: Path, threads: int, stated: str | None = None) -> None:
        core = openvino_core()
        model = core.read_model(str(path))
        wanted = _read_precision(model, path, stated)
        self._compiled = core.compile_model(model, "CPU", openvino_options(threads, wanted))
        kept = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.stated, self.executed = wanted, PRECISIONS.get(kept, kept)
        if wanted == "fp32" != self.executed:
            raise ArtifactError(f"{path.name} is an fp32 file, and OpenVINO runs it in {kept}")
        self._inputs = [SimpleNamespace(name=port.any_name) for port in self._compiled.inputs]
        self._creating = Lock()
        self._free = deque([self._compiled.create_infer_request()])

    def get_inputs(self) -> list[SimpleNamespace]:
        """The inputs, each with its ``name``."""
        return self._inputs

    def run(self, names: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs, float32, copied out of the request before another call gets it."""
        request = self._take()
        request.infer(feed, share_inputs=True)
        found = [np.array(request.get_tensor(name).data, dtype=np.float32) for name in names]
        self._free.append(request)  # not after a fault, which leaves a request in an unknown state
        return found

    def _take(self) -> Any:
        try:
            return self._free.pop()  # a deque's ends are safe under threads
        except IndexError:
            with self._creating:
                return self._compiled.create_infer_request()


def _read_precision(model: Any, path: Path, stated: str | None) -> str:
    """The precision a file is to be run in; raises ArtifactError where it is no known one."""
    own = model.get_rt_info(list(RT_INFO)) if model.has_rt_info(list(RT_INFO)) else None
    named = None if own is None else str(getattr(own, "value", own))
    found = PRECISIONS.get(named, named) if named else stated or "fp32"
    if found not in HINTS:
        raise ArtifactError(f"{path.name} names the precision {found}; allowed: {', '.join(HINTS)}")
    if stated not in (None, found):
        raise ArtifactError(f"{path.name} is made for {found}, the manifest says {stated}")
    return found
