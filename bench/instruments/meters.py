"""A GPU as NVML sees it: energy, memory, utilisation, processes; None where there is none.

NVML is the package ``nvidia-ml-py``, which comes with the extra ``gpu``.
"""

from __future__ import annotations

from typing import Any


class Gpu:
    """One device; ``nvml`` is the module ``pynvml``."""

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        self._device = nvml.nvmlDeviceGetHandleByIndex(index)

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None before Volta, which does not count them."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device) / 1e3
        except self._nvml.NVMLError:
            return None

    def used_bytes(self) -> int:
        """Memory in use on the device, by whomever."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._device).used)

    def free_bytes(self) -> int:
        """Memory that can be taken."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._device).free)

    def process_bytes(self, pid: int) -> int | None:
        """Memory of one process; None where NVML does not know it by this id."""
        for one in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device):
            if one.pid == pid and one.usedGpuMemory is not None:
                return int(one.usedGpuMemory)
        return None

    def compute_pids(self) -> list[int]:
        """Processes that hold a compute context."""
        return [one.pid for one in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device)]

    def utilisation_percent(self) -> int:
        """Share of the last second in which a kernel ran."""
        return int(self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu)


def open_gpu(device: str) -> Gpu | None:
    """The GPU of ``device`` ("cuda", "cuda:1"); None for the CPU, without NVML or without GPU."""
    if not device.startswith("cuda"):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return Gpu(pynvml, int(device.partition(":")[2] or 0))
    except pynvml.NVMLError:
        return None


def preload_cuda_libraries() -> None:
    """Let ONNX Runtime find CUDA and cuDNN where PyTorch's wheels put them (onnxruntime 1.21)."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
