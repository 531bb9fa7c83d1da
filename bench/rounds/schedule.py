"""How long to go on: the planned rounds, then more until the intervals are narrow enough.

Without a time budget a benchmark takes at most EXTEND_AT_MOST times what was planned. With one it
goes on until the intervals are narrow or the budget ends, whichever is first; a round that was
begun is finished, and one always runs. What is done once per variant (grid, server, accuracy)
comes on top: else a long test set would leave no time for the rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.rounds.checkpoint import Measurement
from bench.settings import BenchSettings
from bench.statistics.latency import (
    PROCESSES_FROM,
    Samples,
    collect_samples,
    half_width,
    median_ratio,
)

EXTEND_AT_MOST = 2


@dataclass
class Schedule:
    """The limits of one benchmark; ``baseline`` is what ratios are taken of.

    ``began`` moves on with what does not count.
    """

    settings: BenchSettings
    baseline: str
    began: float = field(default_factory=time.monotonic)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is done within does not count towards the time budget."""
        left_at = time.monotonic()
        try:
            yield
        finally:
            self.began += time.monotonic() - left_at

    def wants_process(self, done: int, measured: Mapping[str, Measurement]) -> bool:
        """Whether to start another set of fresh processes after ``done`` of them."""
        settings = self.settings
        if done == 0:
            return True
        left = self.seconds_left()
        if done < settings.processes:
            return left > 0
        if settings.processes < PROCESSES_FROM or not self._may_extend(done, settings.processes):
            return False
        return left > self._elapsed() / done and not self._narrow(measured)

    def wants_round(
        self, done: int, process: int, deadline: float, measured: Mapping[str, Measurement]
    ) -> bool:
        """Whether to visit all workers of a block again after ``done`` rounds.

        Rounds are added only where so few processes are planned that rounds are what the
        intervals are made of.
        """
        settings = self.settings
        if done == 0:
            return True
        if time.monotonic() >= deadline:
            return False
        if done < settings.rounds:
            return True
        if settings.processes >= PROCESSES_FROM or process + 1 < settings.processes:
            return False
        return self._may_extend(done, settings.rounds) and not self._narrow(measured)

    def deadline(self, process: int, blocks_left: int) -> float:
        """When a block's rounds must end, so that planned processes share the budget evenly."""
        if self.settings.time_budget_s is None:
            return math.inf
        share = min(1.0, (process + 1) / self.settings.processes)
        now = time.monotonic()
        end = self.began + share * self.settings.time_budget_s
        return now + max(0.0, end - now) / blocks_left

    def seconds_left(self) -> float:
        """Of the time budget."""
        budget = self.settings.time_budget_s
        return math.inf if budget is None else budget - self._elapsed()

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _may_extend(self, done: int, planned: int) -> bool:
        if self.settings.target_half_width is None:
            return False
        return self.settings.time_budget_s is not None or done < EXTEND_AT_MOST * planned

    def _narrow(self, measured: Mapping[str, Measurement]) -> bool:
        return widest_half_width(measured, self.baseline) <= self.settings.target_half_width


def widest_half_width(measured: Mapping[str, Measurement], baseline: str) -> float:
    """The widest relative half-width of any latency ratio to the baseline; 0 without a pair."""
    base = measured.get(baseline)
    if base is None or not base.latency or base.reason:
        return 0.0
    own = samples_by_length(base)
    widths = [
        half_width(median_ratio(own[length], samples))
        for name, one in measured.items()
        if name != baseline and one.latency and not one.reason
        for length, samples in samples_by_length(one).items()
        if length in own
    ]
    return max(widths, default=0.0)


def samples_by_length(measured: Measurement) -> dict[float | None, Samples]:
    """All latencies of a variant so far, by the length of what was timed; None: of any."""
    taken: dict[float | None, list[tuple[int, int, list[float]]]] = {}
    for entry in measured.latency:
        one = (entry["process"], entry["round"], entry["samples_ms"])
        taken.setdefault(entry.get("length_s"), []).append(one)
    return {length: collect_samples(entries) for length, entries in taken.items()}
