"""Latency, throughput and multi-variant statistics against NumPy, SciPy and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.statistics.decisions import Estimate, holm_adjust, ratio_finding
from bench.statistics.latency import (
    Samples,
    _resampled_quantiles,
    _units,
    collect_samples,
    compare_accuracy,
    latency_summary,
    median_interval,
    median_ratio,
)

LENGTHS = 20 * np.exp(np.random.default_rng(5).normal(0, 0.3, 40))


def _measure(
    generator: np.random.Generator,
    processes: int,
    rounds: int = 8,
    scale: float = 1.0,
    start_spread: float = 0.01,
    drift: np.ndarray | None = None,
) -> Samples:
    """The same reviews timed in every round; processes differ a little, rounds too."""
    starts = generator.normal(0, start_spread, processes)
    shift = np.zeros((processes, rounds)) if drift is None else drift
    return collect_samples(
        (
            process,
            number,
            scale
            * LENGTHS
            * np.exp(starts[process] + shift[process, number] + generator.normal(0, 0.02))
            * np.exp(generator.gamma(1, 0.03, len(LENGTHS))),
        )
        for process in range(processes)
        for number in range(rounds)
    )


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).gamma(3, 5, 500)
    found = latency_summary(collect_samples([(0, 0, values[:200]), (0, 1, values[200:])]))
    expected = np.percentile(values, [50, 90, 95, 99])
    assert [found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms] == pytest.approx(expected)
    assert (found.count, found.max_ms) == (500, pytest.approx(values.max()))


def test_samples_are_sorted_by_process_and_round() -> None:
    found = collect_samples([(1, 0, [3.0]), (0, 1, [2.0]), (0, 0, [1.0, 1.5])])
    assert found.values.tolist() == [1.0, 1.5, 2.0, 3.0]
    assert found.process.tolist() == [0, 0, 0, 1]
    assert found.round.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("values", [[], [0.0], [-1.0], [float("nan")], [float("inf")]])
def test_samples_must_be_positive_numbers(values: list[float]) -> None:
    with pytest.raises(ValueError, match="samples"):
        collect_samples([(0, 0, values)])


@given(
    st.lists(
        st.lists(st.floats(0.1, 1e4), min_size=1, max_size=12), min_size=1, max_size=5
    ).flatmap(
        lambda units: st.tuples(
            st.just(units),
            st.lists(st.integers(0, 4), min_size=len(units), max_size=len(units)).filter(any),
        )
    )
)
def test_resampled_quantiles_are_those_of_the_samples_written_out(
    case: tuple[list[list[float]], list[int]],
) -> None:
    units, picks = case
    values = np.concatenate([np.array(unit) for unit in units])
    owner = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    written = np.concatenate(
        [np.tile(unit, times) for unit, times in zip(units, picks, strict=True)]
    )
    for quantile in (0.5, 0.95, 0.3, 1.0):
        found = _resampled_quantiles(values, owner, np.array([picks]), quantile)
        assert found[0] == pytest.approx(np.quantile(written, quantile))


def test_the_unit_is_the_highest_level_that_repeats() -> None:
    three = collect_samples((p, r, [1.0, 2.0]) for p in range(3) for r in range(4))
    two = collect_samples((p, r, [1.0, 2.0]) for p in range(2) for r in range(4))
    one = collect_samples((0, r, [1.0, 2.0]) for r in range(4))
    single = collect_samples([(0, 0, np.arange(1.0, 101.0))])
    found = (three, two, one, single)
    assert [int(_units(samples).max()) + 1 for samples in found] == [3, 8, 4, 20]


def test_one_measurement_has_no_interval() -> None:
    lone = collect_samples([(0, 0, [2.0])])
    assert median_interval(lone) == Estimate(2.0, None, None)
    ratio = median_ratio(lone, collect_samples([(0, 0, [1.0])]))
    assert ratio == Estimate(2.0, None, None)
    assert ratio_finding(ratio) == "tie"


def test_constant_measurements_have_a_point_for_an_interval() -> None:
    flat = collect_samples((p, 0, [5.0, 5.0]) for p in range(3))
    for found, value in ((median_interval(flat), 5.0), (median_ratio(flat, flat), 1.0)):
        assert (found.value, found.low, found.high) == pytest.approx((value, value, value))
    assert ratio_finding(median_ratio(flat, flat)) == "tie"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.1, 10))
def test_a_ratio_turns_over_and_ignores_the_unit(seed: int, processes: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    one, other = _measure(generator, processes), _measure(generator, processes, scale=1.3)
    found = median_ratio(one, other)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    scaled = median_ratio(
        Samples(one.values * scale, one.process, one.round),
        Samples(other.values * scale, other.process, other.round),
    )
    assert scaled.value == pytest.approx(found.value)
    assert median_ratio(other, one).value == pytest.approx(1 / found.value)
    assert median_ratio(one, other) == found


def test_few_processes_give_students_width() -> None:
    """Where only processes differ, the interval is Student's over their log medians."""
    medians = np.array([10.0, 10.4, 9.7, 10.1, 10.2])
    flat = collect_samples((p, 0, [value] * 3) for p, value in enumerate(medians))
    found = median_interval(flat)
    assert found.low is not None
    assert found.high is not None
    # the bootstrap error of a median of five varies, so the width is held within a factor
    expected = stats.t.ppf(0.975, 4) * np.log(medians).std(ddof=1) / np.sqrt(5)
    assert 0.7 * expected < np.log(found.high / found.low) / 2 < 2.2 * expected


@pytest.mark.parametrize(("processes", "start_spread"), [(1, 0.0), (3, 0.01), (5, 0.02)])
def test_the_same_variant_twice_is_a_tie(processes: int, start_spread: float) -> None:
    """A/A: about one in twenty may be called a difference."""
    generator = np.random.default_rng(processes)
    called = sum(
        ratio_finding(
            median_ratio(
                _measure(generator, processes, start_spread=start_spread),
                _measure(generator, processes, start_spread=start_spread),
            )
        )
        != "tie"
        for _ in range(60)
    )
    assert called <= 8  # the 99.5 % point of 60 trials at 5 %


def test_drift_that_hits_both_cancels_when_rounds_are_paired() -> None:
    generator = np.random.default_rng(2)
    drift = np.cumsum(generator.normal(0, 0.05, 6 * 8)).reshape(6, 8)
    one = _measure(generator, 6, drift=drift)
    other = _measure(generator, 6, scale=1.25, drift=drift)
    ratio, alone = median_ratio(other, one), median_interval(one)
    assert None not in (ratio.low, ratio.high, alone.low, alone.high)
    assert ratio.low < 1.25 < ratio.high
    assert ratio.high / ratio.low < alone.high / alone.low


def test_a_five_percent_difference_is_found() -> None:
    generator = np.random.default_rng(7)
    found = [
        ratio_finding(median_ratio(_measure(generator, 5, scale=1.05), _measure(generator, 5)))
        for _ in range(20)
    ]
    assert found.count("higher") >= 18


def test_the_noise_floor_makes_a_tie() -> None:
    ratio = Estimate(1.03, 1.01, 1.05)
    assert ratio_finding(ratio) == "higher"
    assert ratio_finding(ratio, noise_floor=0.04) == "tie"
    assert ratio_finding(Estimate(0.5, 0.4, 0.6), noise_floor=0.04) == "lower"


def test_holm_is_the_worked_example() -> None:
    # Holm (1979) by hand: sorted p times (m, m-1, …), running maximum, at most 1
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjust([]).shape == (0,)


@settings(max_examples=20, deadline=None)  # statsmodels collects garbage at each call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_holm_never_makes_a_p_value_smaller(p_values: list[float]) -> None:
    adjusted = holm_adjust(p_values)
    assert (adjusted >= np.array(p_values) - 1e-12).all()
    assert (adjusted <= 1).all()


def test_variants_are_compared_with_the_baseline_and_corrected() -> None:
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 2, 4_000)

    def predictions(share: float) -> np.ndarray:
        return np.where(generator.random(4_000) < share, truth, 1 - truth)

    base = predictions(0.9)
    variants = {"base": base, "same": base, "worse": predictions(0.8), "better": truth}
    found = compare_accuracy(truth, variants, "base")
    assert {name: one.finding for name, one in found.items()} == {
        "same": "tie",
        "worse": "worse",
        "better": "better",
    }
    assert all(one.p_adjusted >= one.paired.p_value for one in found.values())
    assert compare_accuracy(truth, {"base": base}, "base") == {}
