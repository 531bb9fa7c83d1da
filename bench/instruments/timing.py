"""Clocks and order: warm-up until stable, the plan of rounds, memory, and what fits at once.

All clocks are ``time.perf_counter_ns``. Rounds visit the variants in a random order, so that a
machine that grows slower or hotter does so for all alike.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WINDOW = 8  # reviews per warm-up window
STABLE_WITHIN = 0.05  # two windows in a row not faster than the fastest by more than 5 %
REWARM_CALLS = 3  # untimed calls on waking, whose caches others have filled
TURN = 20  # timed calls of one variant before the next one's
HIGHEST_PRIORITY = -20  # nice(2)


def take_priority() -> None:
    """Run before other programs, where the system allows it (nice(2)).

    Threads started later inherit it. On Linux a session is weighed against others as a whole
    (autogroup, sched(7)), hence the second request; it holds for all of this process's session.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(HIGHEST_PRIORITY))


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended; ``calls`` of single reviews."""

    calls: int
    seconds: float
    stable: bool


def warm_up(classify: Callable[[str], int], texts: Sequence[str], limit_s: float) -> WarmUp:
    """Call until windows no longer grow faster than the fastest by 5 %, twice, or ``limit_s``.

    Every window repeats the same reviews, so that their lengths do not pass for drift; its figure
    is the median. A slower window does not count: that is noise, which no warm-up ends.
    """
    window = [texts[index % len(texts)] for index in range(WINDOW)]
    began = time.perf_counter()
    fastest, calm, calls = math.inf, 0, 0
    while True:
        samples = []
        for text in window:
            start = time.perf_counter_ns()
            classify(text)
            samples.append(time.perf_counter_ns() - start)
        calls += WINDOW
        median = statistics.median(samples)
        calm = calm + 1 if median >= (1 - STABLE_WITHIN) * fastest else 0
        fastest = min(fastest, median)
        elapsed = time.perf_counter() - began
        if calm >= 2 or elapsed >= limit_s:
            return WarmUp(calls, round(elapsed, 3), calm >= 2)


def round_orders(names: Sequence[str], seed: Sequence[int]) -> Iterator[list[str]]:
    """A random order of all ``names`` for each round, without end; the same for the same seed."""
    generator = np.random.default_rng(list(seed))
    while True:
        yield [names[index] for index in generator.permutation(len(names))]


def turns(count: int) -> list[tuple[int, int]]:
    """From where to where each of a round's turns goes: ``count`` calls, TURN at a time.

    What the system does to a process holds for a while (the cores its threads got, a neighbour's
    work); many short turns average over it, one long one does not.
    """
    return [(start, min(start + TURN, count)) for start in range(0, count, TURN)]


def choose_rows(total: int, wanted: int | None, seed: int) -> np.ndarray:
    """``wanted`` of ``total`` row positions without repetition, sorted; all for None."""
    if wanted is None or wanted >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=wanted, replace=False))


def plan_blocks(names: Sequence[str], needs: dict[str, float], room: float) -> list[list[str]]:
    """Split ``names`` into blocks, in order, whose needs fit into ``room`` (of any unit).

    A variant that needs more than there is room stands alone.
    """
    blocks: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        if blocks[-1] and used + needs[name] > room:
            blocks.append([])
            used = 0.0
        blocks[-1].append(name)
        used += needs[name]
    return blocks


def peak_memory_bytes() -> int:
    """Peak resident memory of this process: VmHWM on Linux, else getrusage's maxrss.

    Mapped weight files count as far as they were read; a child's getrusage would start from
    its parent's value, VmHWM does not.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_memory_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return psutil.Process().memory_info().rss


def forget_peak_memory() -> bool:
    """Begin a new ``peak_memory_bytes`` at what is resident now; False where Linux does not let.

    Writing 5 to clear_refs resets VmHWM (proc(5)).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def free_memory_bytes() -> int:
    """Memory that can be taken: of the machine, and within this container's limit."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        statistic = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):
        return free
    if limit == "max":
        return free
    reclaimable = int(statistic.get("inactive_file", 0))
    return min(free, max(0, int(limit) - used + reclaimable))


def round_sample(value: float) -> float:
    """Four significant digits, which is finer than any timer's noise."""
    return float(f"{value:.4g}")
