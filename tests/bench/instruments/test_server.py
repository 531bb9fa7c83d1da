"""The server scenario against simulated servers whose capacity theory knows."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import gammaln

from bench.instruments.scenarios import (
    RESOLUTION,
    WallClock,
    highest_rate,
    poisson_arrivals,
    serve_arrivals,
)

SERVICE_S = 0.01


class VirtualClock:
    """Time that passes only when somebody waits or works."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)


def simulate(
    rate: float, queries: int, seed: int, max_batch: int = 1, service_s: float = SERVICE_S
) -> np.ndarray:
    """Latencies of a server that takes the same time for any batch."""
    clock = VirtualClock()

    def answer(indices: list[int]) -> None:
        assert 1 <= len(indices) <= max_batch
        clock.time += service_s

    return serve_arrivals(poisson_arrivals(rate, queries, (seed,)), answer, max_batch, clock)


def waiting_share(wait: float, load: float) -> float:
    """P(waiting time <= wait x service time) of M/D/1 (Erlang 1909; Crommelin 1932)."""
    steps = np.arange(int(np.floor(wait)) + 1)
    argument = load * (steps - wait)
    logs = steps * np.log(np.maximum(-argument, 1e-300)) - argument - gammaln(steps + 1)
    terms = np.where((argument == 0) & (steps > 0), 0.0, np.exp(logs))
    return float((1 - load) * (np.where(steps % 2, -1, 1) * terms).sum())


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_is_that_of_m_d_1(load: float) -> None:
    """Mean waiting time: load x service / (2 (1 - load)) (Pollaczek and Khinchine)."""
    waits = np.concatenate([simulate(load / SERVICE_S, 40_000, s) for s in range(4)]) - SERVICE_S
    expected = load * SERVICE_S / (2 * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.08)
    assert np.mean(waits <= 1e-12) == pytest.approx(1 - load, abs=0.02)
    for wait in (0.5, 1.5, 3.0):
        share = np.mean(waits <= wait * SERVICE_S)
        assert share == pytest.approx(waiting_share(wait, load), abs=0.02)


@pytest.mark.slow
def test_the_highest_rate_is_the_one_of_the_formula() -> None:
    """p99 of M/D/1 within five service times: solved for the load."""
    bound = 5 * SERVICE_S
    load = brentq(lambda value: waiting_share(4.0, value) - 0.99, 0.05, 0.95)
    found = highest_rate(lambda rate, trial: simulate(rate, 20_000, trial), bound, 10.0)
    assert found.rate_per_s == pytest.approx(load / SERVICE_S, rel=2 * RESOLUTION)
    assert found.p99_ms <= 1e3 * bound
    assert found.trials[-1].holds
    assert found.trials[-1].rate_per_s == found.rate_per_s


def test_batching_multiplies_the_capacity() -> None:
    """A server that takes ten at the price of one holds more than one-by-one ever can."""
    bound = 4 * SERVICE_S

    def search(max_batch: int) -> float:
        return highest_rate(
            lambda rate, trial: simulate(rate, 5_000, trial, max_batch), bound, 10.0
        ).rate_per_s

    alone, together = search(1), search(10)
    assert alone < 1 / SERVICE_S < together < 10 / SERVICE_S
    # while every batch takes all that wait, nobody waits for more than the batch before it
    assert simulate(5 / SERVICE_S, 5_000, 0, max_batch=100).max() <= 2 * SERVICE_S + 1e-9


def test_a_bound_below_the_service_time_is_never_held() -> None:
    found = highest_rate(lambda rate, trial: simulate(rate, 200, trial), SERVICE_S / 2, 50.0)
    assert (found.rate_per_s, found.p99_ms) == (0.0, None)
    assert not any(trial.holds for trial in found.trials)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.95), st.integers(1, 8))
def test_queries_are_answered_in_order_and_none_before_it_came(
    seed: int, load: float, max_batch: int
) -> None:
    clock, answered = VirtualClock(), []

    def answer(indices: list[int]) -> None:
        assert arrivals[indices[-1]] <= clock.time + 1e-12
        answered.extend(indices)
        clock.time += SERVICE_S

    arrivals = poisson_arrivals(load / SERVICE_S, 200, (seed,))
    latencies = serve_arrivals(arrivals, answer, max_batch, clock)
    assert answered == list(range(200))
    assert (latencies >= SERVICE_S - 1e-12).all()


def test_a_hopeless_trial_ends_early_and_fails() -> None:
    clock = VirtualClock()

    def answer(indices: list[int]) -> None:
        clock.time += SERVICE_S

    arrivals = poisson_arrivals(3 / SERVICE_S, 1_000, (0,))
    latencies = serve_arrivals(arrivals, answer, 1, clock, bound_s=3 * SERVICE_S)
    assert 10 < len(latencies) < 200
    assert np.percentile(latencies, 99, method="higher") > 3 * SERVICE_S


def test_arrivals_are_poisson() -> None:
    gaps = np.diff(poisson_arrivals(50.0, 20_000, (1,)), prepend=0)
    assert gaps.mean() == pytest.approx(0.02, rel=0.03)
    assert gaps.std() == pytest.approx(0.02, rel=0.03)


def test_the_wall_clock_waits() -> None:
    answered: list[int] = []

    def answer(found: list[int]) -> None:
        time.sleep(0.002)
        answered.extend(found)

    latencies = serve_arrivals(np.array([0.0, 0.03, 0.031]), answer, 1, WallClock())
    assert answered == [0, 1, 2]
    assert (latencies >= 0.002).all()
