"""What the hardware tells: a GPU as NVML sees it, energy of CPU packages (RAPL) and GPU.

None or nothing where there is none. NVML is the package ``nvidia-ml-py``, which comes with the
extra ``gpu``. RAPL counts a whole CPU package, NVML a whole GPU: while a variant is measured all
others sleep, so the figure is the variant's plus what the machine draws idle.
"""

from __future__ import annotations

import ctypes
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class Gpu:
    """One device; ``nvml`` is the module ``pynvml``, ``device`` its handle (None: the first).

    What NVML does not tell of it (a MIG instance, a vGPU, an old card) is None, never an error.
    """

    def __init__(self, nvml: Any, device: Any = None) -> None:
        self._nvml = nvml
        self._device = nvml.nvmlDeviceGetHandleByIndex(0) if device is None else device

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None before Volta, which does not count them."""
        millijoules = self._ask("TotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def used_bytes(self) -> int | None:
        """Memory in use on the device, by whomever."""
        memory = self._ask("MemoryInfo")
        return None if memory is None else int(memory.used)

    def free_bytes(self) -> int | None:
        """Memory that can be taken."""
        memory = self._ask("MemoryInfo")
        return None if memory is None else int(memory.free)

    def process_bytes(self, pid: int) -> int | None:
        """Memory of one process; None where NVML does not know it by this id."""
        for one in self._ask("ComputeRunningProcesses") or []:
            if one.pid == pid and one.usedGpuMemory is not None:
                return int(one.usedGpuMemory)
        return None

    def compute_pids(self) -> list[int]:
        """Processes that hold a compute context, as far as they are told."""
        return [one.pid for one in self._ask("ComputeRunningProcesses") or []]

    def utilisation_percent(self) -> int | None:
        """Share of the last second in which a kernel ran."""
        rates = self._ask("UtilizationRates")
        return None if rates is None else int(rates.gpu)

    def _ask(self, what: str) -> Any:
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(self._device)
        except self._nvml.NVMLError:
            return None


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
        found = find_device(pynvml, int(device.partition(":")[2] or 0))
    except pynvml.NVMLError:
        return None
    return None if found is None else Gpu(pynvml, found)


def find_device(nvml: Any, ordinal: int) -> Any:
    """NVML's handle of CUDA's device ``ordinal``; None where NVML does not know it.

    The two count differently: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER mean nothing to NVML, so
    the device is found by its UUID, a MIG instance by its own.
    """
    known = cuda_uuid(ordinal)
    if known is not None:
        names = [f"GPU-{known}", f"MIG-{known}"]
    else:
        visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        chosen = visible[ordinal] if ordinal < len(visible) and visible[ordinal] else str(ordinal)
        if chosen.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(chosen))
        names = [chosen]
    for name in names:
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError:
            continue
    return None


def cuda_uuid(ordinal: int) -> str | None:
    """The UUID of CUDA's device ``ordinal``, asked of the driver; None where there is none.

    No context is made (cuDeviceGetUuid, CUDA driver API), and PyTorch is not needed.
    """
    try:
        cuda = ctypes.CDLL(DRIVER)
        ask = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    except (OSError, AttributeError):
        return None
    device, told = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), ordinal)
        or ask(ctypes.byref(told), device)
    )
    return None if failed else str(uuid.UUID(bytes=bytes(told)))


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

    @property
    def counts(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._domains or self._gpu)

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
        now = self._gpu.energy_j() if self._gpu else None
        if now is not None:
            found["gpu"] = now - self._gpu_before
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
