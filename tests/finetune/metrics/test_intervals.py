"""Intervals of means over runs: inside their range, Student's where that is far from its ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from finetune.metrics.intervals import mean_interval

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@given(SHARES)
def test_a_mean_of_shares_stays_between_nothing_and_all(values: list[float]) -> None:
    mean, deviation, interval = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if interval is not None:
        assert 0 <= interval[0] <= mean <= interval[1] <= 1


def test_three_seeds_far_apart_end_below_one() -> None:
    """Student's own interval of these is 0.4259 to 1.0328."""
    mean, _, (low, high) = mean_interval([0.6, 0.75, 0.8379])
    assert mean == pytest.approx(0.7293)
    assert 0.3 < low < 0.6 < 0.84 < high < 0.95


def test_runs_close_together_have_students_interval() -> None:
    values = [0.8912, 0.8924, 0.8909, 0.8931]
    _, _, found = mean_interval(values)
    ends = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found == pytest.approx(ends, abs=2e-5)


@pytest.mark.parametrize(("centre", "spread", "runs"), [(0.9, 0.02, 3), (0.97, 0.01, 5)])
def test_nineteen_of_twenty_intervals_hold_the_mean(
    centre: float, spread: float, runs: int
) -> None:
    """Over 2,000 made-up studies whose runs differ as a beta distribution's draws do."""
    generator = np.random.default_rng(0)
    size = centre * (1 - centre) / spread**2 - 1
    draws = generator.beta(centre * size, (1 - centre) * size, (2_000, runs))
    held = 0
    for values in draws:
        _, _, (low, high) = mean_interval(values)
        held += low <= centre <= high
    assert 0.93 < held / len(draws) < 0.97


@given(st.lists(st.floats(1e-3, 50), min_size=2, max_size=8))
def test_a_loss_stays_above_nothing(values: list[float]) -> None:
    assume(np.ptp(values) > 1e-6)
    mean, _, (low, high) = mean_interval(values, "positive")
    assert 0 < low < mean < high


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [0.1 + 0.2, 0.3]])
def test_runs_all_alike_do_not_say_how_runs_differ(values: list[float]) -> None:
    assert mean_interval(values) == (pytest.approx(values[0]), 0.0, None)


def test_one_run_has_no_deviation() -> None:
    assert mean_interval([0.5]) == (0.5, None, None)


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [-0.1, 0.5]])
def test_what_is_no_share_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval(values)
