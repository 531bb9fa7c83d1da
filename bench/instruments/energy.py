"""Energy where the hardware tells: RAPL's packages under Linux, NVML on a GPU; absent otherwise.

RAPL counts a whole CPU package, NVML a whole GPU: while a variant is measured all others sleep,
so the figure is the variant's plus what the machine draws idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.instruments.meters import Gpu

POWERCAP = Path("/sys/class/powercap")


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
