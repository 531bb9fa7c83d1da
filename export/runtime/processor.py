"""What this process may use of the machine: cores for threads, instructions for int8.

Shipped inside ``predict.py``, so it imports the standard library only.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from finetune.core.cpu_flags import cpu_flags

CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")
WIDE = ("amx_int8", "avx512_vnni", "avx_vnni")  # sums of int8 products in 32 bits
NARROW = ("avx512bw", "avx2")  # sums of pairs in 16 bits, which saturate


@dataclass(frozen=True)
class InstructionSet:
    """What int8 products run on, and whether weights must be limited to 7 bits there.

    Without VNNI, u8 x s8 pairs are summed in saturating 16 bits, which 8-bit weights overflow
    (ONNX Runtime, "Quantize ONNX models": reduce_range).
    """

    name: str
    reduce_range: bool


def available_cores(cpus: Path = CPUS, cgroups: Path = CGROUPS) -> int:
    """Physical cores this process may use: its affinity, within its container's CPU quota.

    Two threads on one core's siblings only wait for each other in matrix products; and
    ONNX Runtime's threads spin, so that more of them than the quota pays for are throttled.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {_siblings(cpus, cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), int(_cpu_quota(cgroups))))


def _siblings(cpus: Path, cpu: int) -> str:
    """The logical processors that share a core with ``cpu``, as Linux writes them."""
    try:
        return (cpus / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_quota(cgroups: Path) -> float:
    """Processors' worth of time a control group grants, version 2 or 1; a million for no limit."""
    folders = [cgroups, *_own_groups(cgroups)]
    quotas = [1e6]
    for folder in folders:
        for read in (_quota_v2, _quota_v1):
            try:
                quotas.append(read(folder))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return min(quotas)


def _own_groups(cgroups: Path) -> list[Path]:
    """The folders of this process's control groups, and of all above them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        own = root / path.strip("/")
        folders += [own, *(above for above in own.parents if above.is_relative_to(root))]
    return folders


def _quota_v2(folder: Path) -> float:
    limit, period = (folder / "cpu.max").read_text().split()
    return float(limit) / float(period)  # "max" is a ValueError: no limit


def _quota_v1(folder: Path) -> float:
    limit = float((folder / "cpu.cfs_quota_us").read_text())
    if limit < 0:
        raise ValueError("no limit")
    return limit / float((folder / "cpu.cfs_period_us").read_text())


def host_instruction_set() -> InstructionSet:
    """The int8 instruction set of this machine, the widest it has."""
    flags = cpu_flags()
    for flag in WIDE:
        if flag in flags:
            return InstructionSet(flag, reduce_range=False)
    for flag in NARROW:
        if flag in flags:
            return InstructionSet(flag, reduce_range=True)
    if platform.machine().lower() in ("arm64", "aarch64"):
        return InstructionSet("arm64", reduce_range=False)
    return InstructionSet("unknown", reduce_range=True)


def mismatch(made_for: InstructionSet, host: InstructionSet) -> str | None:
    """What to know of a file made for another instruction set; None where it is the same."""
    if made_for.name == host.name:
        return None
    start = f"this int8 file was made for {made_for.name}, this machine has {host.name}"
    if host.reduce_range and not made_for.reduce_range:
        return f"{start}: its 8-bit weights take slower products here; export on such a machine"
    if made_for.reduce_range and not host.reduce_range:
        return f"{start}: its 7-bit weights lose accuracy for nothing; export again here"
    return f"{start}: the arithmetic is the same, the speed was measured elsewhere"
