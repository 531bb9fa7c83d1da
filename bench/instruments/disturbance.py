"""Foreign load: what other programs took of CPU and GPU while the rounds ran.

CPU: the machine's busy time (stolen time of a virtual machine included) on the cores this process
may use, minus the time of this process and its workers. GPU: its utilisation while all workers
sleep, and the compute processes that are not workers; NVML does not tell them apart in a
container that has process ids of its own, then the number is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

from bench.instruments.meters import Gpu

IDLE_FIELDS = ("idle", "iowait", "guest", "guest_nice")  # Linux counts guests in user and nice
GPU_SETTLE_S = 1.1  # NVML's utilisation looks back up to a second


class CpuWatch:
    """Laps of foreign CPU time, in cores; None where the system does not account for CPU time."""

    def __init__(self, cores: Iterable[int] | None = None) -> None:
        self._cores = sorted(cores) if cores is not None else _own_cores()
        self._since = self._busy = 0.0
        self._own: dict[int, float] = {}

    def start(self, pids: Iterable[int]) -> None:
        """Begin a lap; ``pids`` are the workers."""
        self._own = {pid: cpu_seconds(pid) for pid in [os.getpid(), *pids]}
        self._busy, self._since = busy_seconds(self._cores), time.monotonic()

    def stop(self) -> float | None:
        """Cores that others kept busy since ``start``, on average."""
        elapsed, busy = time.monotonic() - self._since, busy_seconds(self._cores) - self._busy
        own = sum(max(0.0, cpu_seconds(pid) - before) for pid, before in self._own.items())
        if elapsed <= 0 or busy <= 0:
            return None
        return round(max(0.0, busy - own) / elapsed, 3)


def busy_seconds(cores: Iterable[int]) -> float:
    """Seconds that these cores have been busy since the machine started."""
    times = psutil.cpu_times(percpu=True)
    chosen = [times[core] for core in cores if core < len(times)]
    return sum(sum(one) - sum(getattr(one, name, 0.0) for name in IDLE_FIELDS) for one in chosen)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that have ended; 0 where it is gone."""
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def gpu_disturbance(gpu: Gpu | None, pids: Iterable[int]) -> dict[str, float | int]:
    """Utilisation in percent and foreign processes while all workers sleep; empty without GPU."""
    if gpu is None:
        return {}
    time.sleep(GPU_SETTLE_S)
    found: dict[str, float | int] = {}
    busy = gpu.utilisation_percent()
    if busy is not None:
        found["foreign_gpu_percent"] = busy
    processes, own = set(gpu.compute_pids()), set(pids)
    if processes & own:
        found["foreign_gpu_processes"] = len(processes - own)
    return found


def _own_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))
