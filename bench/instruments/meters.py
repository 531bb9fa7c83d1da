"""What the hardware tells: a GPU as NVML sees it, energy of CPU packages (RAPL) and GPU.

None or nothing where there is none. NVML is the package ``nvidia-ml-py``, which comes with the
extra ``gpu``. RAPL counts a whole CPU package, NVML a whole GPU: while a variant is measured all
others sleep, so the figure is the variant's plus what the machine draws idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


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


@dataclass(frozen=True)
class RaplDomain:
    """One package's counter (Linux, power capping framework): microjoules that wrap around."""

    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """The counter now."""
        return int((self.folder / "energy_uj").read_text())


class EnergyMeter:
    """Joules between ``start`` and ``stop``, by source ("cpu", "gpu"); empty where none is told."""

    def __init__(self, domains: list[RaplDomain], gpu: Gpu | None = None) -> None:
        self._domains = domains
        self._gpu = gpu if gpu is not None and gpu.energy_j() is not None else None
        self._before: list[int] = []
        self._gpu_before = 0.0

    def start(self) -> None:
        """Note the counters."""
        self._before = [domain.read_uj() for domain in self._domains]
        self._gpu_before = (self._gpu.energy_j() or 0.0) if self._gpu else 0.0

    def stop(self) -> dict[str, float]:
        """Joules since ``start``; call before the counters wrap around (minutes)."""
        found = {}
        if self._domains:
            used = [
                _passed(before, domain.read_uj(), domain.range_uj)
                for domain, before in zip(self._domains, self._before, strict=True)
            ]
            found["cpu"] = sum(used) / 1e6
        if self._gpu:
            found["gpu"] = (self._gpu.energy_j() or 0.0) - self._gpu_before
        return found


def rapl_domains(root: Path = POWERCAP) -> list[RaplDomain]:
    """The packages whose counters may be read; none in most virtual machines or without root."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:  # a core or DRAM inside a package is counted with it
            continue
        try:
            if not (folder / "name").read_text().startswith("package"):
                continue
            domain = RaplDomain(folder, int((folder / "max_energy_range_uj").read_text()))
            domain.read_uj()
        except (OSError, ValueError):
            continue
        found.append(domain)
    return found


def _passed(before: int, after: int, range_uj: int) -> int:
    return after - before if after >= before else after + range_uj - before
