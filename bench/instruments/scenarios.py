"""Scenarios after MLPerf Inference's definitions (mlcommons/inference): what one timing is.

Single-stream: the next review is sent when the answer to the last has come. Offline: all rows
are there at once and the runtime batches them as it likes best. Grid: latency over batch size and
length, reviews of an exact number of tokens in one padded batch. Server: Poisson arrivals, the
highest rate that holds a p99.

In the server scenario queries arrive at exponentially distributed intervals and one worker answers
them in their order; latency counts from the scheduled arrival, so that waiting in the queue counts
too. Dynamic batching answers all queries that wait, up to a limit, at once. The clock is passed
in: tests run the same loop in virtual time, where theory knows the answer (M/D/1).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Any, Protocol

import numpy as np

FILLER = " ."  # one token in every vocabulary we know, and then counted all the same
CALLS_AT_LEAST = 3
CALLS_AT_MOST = 20
CELL_S = 0.5  # a cell ends after this long, once it has CALLS_AT_LEAST
RESOLUTION = 0.05  # of the rate that is searched for
TRIALS_AT_MOST = 24
PERCENTILE = 99


def single_stream(classify: Callable[[str], int], texts: Sequence[str]) -> list[float]:
    """Milliseconds from text to class id, one text at a time, in the order of ``texts``."""
    samples = []
    for text in texts:
        start = perf_counter_ns()
        classify(text)
        samples.append(perf_counter_ns() - start)
    return [nanoseconds / 1e6 for nanoseconds in samples]


def offline(
    classify_many: Callable[[Sequence[str], int | None], list[int]],
    texts: Sequence[str],
    batch_tokens: int | None,
) -> tuple[float, list[int]]:
    """Seconds for all ``texts`` in bulk, and the class ids in their order."""
    start = perf_counter_ns()
    predicted = classify_many(texts, batch_tokens)
    return (perf_counter_ns() - start) / 1e9, predicted


def text_of_length(
    count_tokens: Callable[[str], int], words: Sequence[str], tokens: int
) -> str | None:
    """A text of exactly ``tokens`` tokens from the front of ``words``, filled up with full stops.

    None where there is none: the model truncates before, or the words do not suffice.
    """
    low, high = 0, min(len(words), tokens)  # no word has less than one token
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(" ".join(words[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    text = " ".join(words[:low])
    for _ in range(tokens):
        found = count_tokens(text)
        if found >= tokens:
            break
        text += FILLER
    return text if count_tokens(text) == tokens else None


def batch_of_length(
    count_tokens: Callable[[str], int], texts: Sequence[str], batch: int, tokens: int
) -> list[str] | None:
    """``batch`` different texts of the same length; None where the length cannot be had."""
    words = " ".join(texts).split()
    made = []
    for index in range(batch):
        start = index * len(words) // batch
        text = text_of_length(count_tokens, [*words[start:], *words[:start]], tokens)
        if text is None:
            return None
        made.append(text)
    return made


def time_batch(classify_batch: Callable[[Sequence[str]], object], batch: list[str]) -> list[float]:
    """Milliseconds per call, after one that is not counted."""
    classify_batch(batch)
    began, samples = perf_counter(), []
    for number in itertools.count(1):
        start = perf_counter_ns()
        classify_batch(batch)
        samples.append((perf_counter_ns() - start) / 1e6)
        late = perf_counter() - began > CELL_S
        if number >= CALLS_AT_MOST or (number >= CALLS_AT_LEAST and late):
            return samples
    raise AssertionError


class Clock(Protocol):
    """Seconds, and waiting for a time to come."""

    def now(self) -> float:
        """Seconds since some fixed time."""

    def wait_until(self, moment: float) -> None:
        """Return once ``now()`` has reached ``moment``."""


class WallClock:
    """Real time; sleeps until shortly before, then spins."""

    SPIN_S = 0.0005

    def now(self) -> float:
        """time.perf_counter."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep, then spin for the last half millisecond."""
        rest = moment - time.perf_counter() - self.SPIN_S
        if rest > 0:
            time.sleep(rest)
        while time.perf_counter() < moment:
            pass


@dataclass(frozen=True)
class Trial:
    """One rate tried: queries a second, and the p99 latency it had."""

    rate_per_s: float
    p99_ms: float
    queries: int
    holds: bool


@dataclass(frozen=True)
class Found:
    """The highest rate that held the bound (0: none did), with every trial on the way."""

    rate_per_s: float
    p99_ms: float | None
    trials: tuple[Trial, ...]


def poisson_arrivals(rate_per_s: float, queries: int, seed: Sequence[int]) -> np.ndarray:
    """Arrival times (queries,) in seconds from 0."""
    gaps = np.random.default_rng(list(seed)).exponential(1 / rate_per_s, queries)
    return np.cumsum(gaps)


def serve_arrivals(
    arrivals_s: np.ndarray,
    answer: Callable[[list[int]], Any],
    max_batch: int,
    clock: Clock,
    bound_s: float = float("inf"),
) -> np.ndarray:
    """Answer every query once it has arrived; its latency in seconds (queries,).

    ``answer`` gets the indices of the queries to answer together, at most ``max_batch``. Once
    more than a hundredth of all were later than ``bound_s``, the rest cannot mend the p99: the
    latencies so far are returned.
    """
    began, latencies, done, late = clock.now(), np.empty(len(arrivals_s)), 0, 0
    while done < len(arrivals_s):
        clock.wait_until(began + arrivals_s[done])
        here = int(np.searchsorted(arrivals_s, clock.now() - began, side="right"))
        end = min(max(here, done + 1), done + max_batch)
        answer(list(range(done, end)))
        latencies[done:end] = clock.now() - began - arrivals_s[done:end]
        late += int((latencies[done:end] > bound_s).sum())
        done = end
        if late * 100 > len(arrivals_s):
            break
    return latencies[:done]


def highest_rate(
    try_rate: Callable[[float, int], np.ndarray], bound_s: float, first_rate: float
) -> Found:
    """Search the highest rate whose p99 latency stays within ``bound_s``.

    ``try_rate`` gives the latencies (n,) in seconds at a rate, with a trial number for the seed.
    The rate doubles or halves until the bound lies between two trials, then the interval is
    halved until it is narrower than RESOLUTION. A queue of finite length may hold a rate by luck,
    so the result has to hold again on other arrivals; else the search goes on below it.
    """
    trials: list[Trial] = []

    def holds(rate: float) -> bool:
        latencies = try_rate(rate, len(trials))
        p99 = float(np.percentile(latencies, PERCENTILE, method="higher"))
        trials.append(Trial(rate, 1e3 * p99, len(latencies), p99 <= bound_s))
        return trials[-1].holds

    low, high, rate = 0.0, float("inf"), first_rate
    while len(trials) < TRIALS_AT_MOST:
        if low and high - low <= RESOLUTION * low:
            if holds(low):
                break
            low, high = 0.0, low
            rate = high * (1 - RESOLUTION)
        elif holds(rate):
            low = rate
            rate = 2 * rate if high == float("inf") else (low + high) / 2
        else:
            high = rate
            rate = (low + high) / 2
            if high < first_rate / 1000:
                break
    kept = [trial for trial in trials if trial.rate_per_s == low and trial.holds]
    return Found(low, max((trial.p99_ms for trial in kept), default=None), tuple(trials))
