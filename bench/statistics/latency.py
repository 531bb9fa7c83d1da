"""Latency, throughput and the comparison of many variants: NumPy in, frozen dataclasses out.

Accuracy, F1 and the paired test of one pair live in ``finetune.metrics``.

Intervals of medians. What varies most between two measurements of the same program is the
process (memory layout, start-up), then the round (what else the machine did), then the sample.
So the bootstrap resamples whole processes with everything in them; resampling the rounds inside
as well would count their noise twice (Davison and Hinkley 1997, section 3.8). Fewer processes
than PROCESSES_FROM cannot show how processes differ: then the rounds are resampled (with a single
round, consecutive batches of its samples), and the interval leaves out what differs from start to
start. A percentile interval from three processes would be far too narrow, so the bootstrap gives
the standard error of the log median, corrected for the number of units, and Student's t the width.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.statistics.decisions import AccuracyComparison, Estimate, judge_all
from finetune.metrics.classification import CONFIDENCE, PairedDifference, paired_difference

RESAMPLES = 4_000
BATCHES = 20  # of a single round
PROCESSES_FROM = 3  # with two, Student's t has one degree of freedom and says nothing
PAIRED_FROM = 5  # units; with fewer, pairing costs more in degrees of freedom than drift does


@dataclass(frozen=True)
class Samples:
    """Positive measurements (n,) and, for each, the process and the round it was taken in."""

    values: np.ndarray
    process: np.ndarray
    round: np.ndarray


@dataclass(frozen=True)
class LatencySummary:
    """Percentiles over all samples, in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def collect_samples(entries: Iterable[tuple[int, int, Iterable[float]]]) -> Samples:
    """Samples from (process, round, measurements); sorted by process, then round.

    Raises ValueError when there are none, or on one that is not a positive finite number.
    """
    ordered = sorted((process, number, list(values)) for process, number, values in entries)
    values = np.array([v for _, _, taken in ordered for v in taken], dtype=np.float64)
    if not len(values):
        raise ValueError("no samples")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("samples must be positive, finite numbers")
    lengths = [len(taken) for _, _, taken in ordered]
    return Samples(
        values=values,
        process=np.repeat([process for process, _, _ in ordered], lengths),
        round=np.repeat([number for _, number, _ in ordered], lengths),
    )


def latency_summary(samples: Samples) -> LatencySummary:
    """p50, p90, p95, p99 (NumPy's linear interpolation) and the maximum, in milliseconds."""
    p50, p90, p95, p99 = np.percentile(samples.values, [50, 90, 95, 99]).tolist()
    return LatencySummary(len(samples.values), p50, p90, p95, p99, float(samples.values.max()))


def median_interval(samples: Samples, *, seed: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """The median of all samples with its bootstrap interval (see the top of this file)."""
    median = float(np.median(samples.values))
    units = _units(samples)
    count = int(units.max()) + 1
    if count < 2:
        return Estimate(median, None, None)
    draws = np.log(_resampled_quantiles(samples.values, units, _draw_units(count, seed)))
    return _log_interval(median, _standard_error(draws, count), count - 1, confidence)


def median_ratio(
    numerator: Samples,
    denominator: Samples,
    *,
    together: bool = True,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Ratio of two medians with its bootstrap interval (``quantile_ratio``)."""
    return quantile_ratio(
        numerator, denominator, 0.5, together=together, seed=seed, confidence=confidence
    )


def quantile_ratio(
    numerator: Samples,
    denominator: Samples,
    quantile: float,
    *,
    together: bool = True,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Ratio of a quantile of two (0.95: p95) with its bootstrap interval.

    Where both were measured in the same processes and rounds, and there are PAIRED_FROM units
    or more, they are resampled together: drift of the machine hits both and cancels. Otherwise,
    or where they were not measured ``together`` (two benchmarks), each is resampled by itself,
    with Welch and Satterthwaite's degrees of freedom.
    """
    ratio = float(
        np.quantile(numerator.values, quantile) / np.quantile(denominator.values, quantile)
    )
    above, below = _units(numerator), _units(denominator)
    counts = int(above.max()) + 1, int(below.max()) + 1
    if min(counts) < 2:
        return Estimate(ratio, None, None)
    paired = together and counts[0] == counts[1] >= PAIRED_FROM
    paired = paired and _same_schedule(numerator, denominator)
    picks = _draw_units(counts[0], seed)
    top = np.log(_resampled_quantiles(numerator.values, above, picks, quantile))
    others = picks if paired else _draw_units(counts[1], seed + 1)
    bottom = np.log(_resampled_quantiles(denominator.values, below, others, quantile))
    if paired:
        error = _standard_error(top - bottom, counts[0])
        return _log_interval(ratio, error, counts[0] - 1, confidence)
    errors = np.array([_standard_error(top, counts[0]), _standard_error(bottom, counts[1])])
    freedom = np.array(counts) - 1
    variance = errors**2
    spread = float((variance**2 / freedom).sum())
    degrees = float(variance.sum()) ** 2 / spread if spread > 0 else float(freedom.sum())
    return _log_interval(ratio, float(np.hypot(*errors)), degrees, confidence)


def cell_median_ms(samples_by_process: Sequence[Sequence[float]]) -> float:
    """The median over processes of each process's median."""
    return statistics.median(statistics.median(samples) for samples in samples_by_process)


def half_width(ratio: Estimate) -> float:
    """Half the width of a ratio's interval, relative to the ratio; infinite without interval."""
    if ratio.low is None or ratio.high is None:
        return float("inf")
    return (ratio.high - ratio.low) / (2 * ratio.value)


def difference_of(one: Estimate, other: Estimate) -> Estimate:
    """One figure minus another that was measured apart from it (MOVER: Zou and Donner 2008)."""
    value = one.value - other.value
    if None in (one.low, one.high, other.low, other.high):
        return Estimate(value, None, None)
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, float(value - down), float(value + up))


def ratio_of_ratios(numerator: Estimate, denominator: Estimate) -> Estimate:
    """One ratio over another that was measured apart from it.

    The interval adds the squared half-widths of the logarithms (MOVER: Zou and Donner 2008).
    """
    value = numerator.value / denominator.value
    ends = numerator.low, numerator.high, denominator.low, denominator.high
    if None in ends:
        return Estimate(value, None, None)
    top, bottom = (
        np.abs(np.log([one.low, one.high]) - np.log(one.value)) for one in (numerator, denominator)
    )
    down, up = np.hypot(top[0], bottom[1]), np.hypot(top[1], bottom[0])
    return Estimate(value, float(value * np.exp(-down)), float(value * np.exp(up)))


def compare_accuracy(
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    baseline: str,
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> dict[str, AccuracyComparison]:
    """Every variant's predictions (n,) against the baseline's on the same ``truth`` (n,)."""
    truth = np.asarray(truth)
    base = np.asarray(predicted[baseline]) == truth
    pairs = {
        name: paired_difference(
            np.asarray(classes) == truth, base, seed=seed, confidence=confidence
        )
        for name, classes in predicted.items()
        if name != baseline
    }
    return judge_all({name: compare_rows(pair) for name, pair in pairs.items()})


def compare_rows(pair: PairedDifference) -> AccuracyComparison:
    """A pair's difference and test; p not yet adjusted."""
    difference = Estimate(pair.difference, *pair.interval)
    test = f"McNemar, {pair.test}"
    return AccuracyComparison(difference, pair.p_value, pair.p_value, test, "tie", pair)


def _units(samples: Samples) -> np.ndarray:
    """The resampling unit (n,) of each sample, 0 … u-1: process, or round, or batch."""
    processes, units = np.unique(samples.process, return_inverse=True)
    if len(processes) >= PROCESSES_FROM:
        return units
    visits = np.stack([samples.process, samples.round])
    rounds, units = np.unique(visits, axis=1, return_inverse=True)
    if rounds.shape[1] > 1:
        return units.reshape(-1)
    count = len(samples.values)
    return np.arange(count) * min(BATCHES, count) // count


def _same_schedule(one: Samples, other: Samples) -> bool:
    """Whether both were measured in the same processes and rounds."""
    return _schedule(one) == _schedule(other)


def _schedule(samples: Samples) -> set[tuple[int, int]]:
    return set(zip(samples.process.tolist(), samples.round.tolist(), strict=True))


def _draw_units(count: int, seed: int) -> np.ndarray:
    """How often each of ``count`` units is picked in each resample: (RESAMPLES, count)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def _resampled_quantiles(
    values: np.ndarray, units: np.ndarray, picks: np.ndarray, quantile: float = 0.5
) -> np.ndarray:
    """A quantile of the pooled samples (n,) when unit u is taken picks[b, u] times: (b,).

    Between two samples it is interpolated, as NumPy does.
    """
    order = np.argsort(values, kind="stable")
    # cumulative[i, u]: samples of unit u among the i + 1 smallest
    cumulative = (units[order, None] == np.arange(picks.shape[1])).cumsum(axis=0)
    total = picks @ cumulative[-1]
    place = quantile * (total - 1)
    below = np.floor(place + 1e-9).astype(np.int64)  # 0.95 of 20 is 18.999…
    ranks = (below + 1, np.minimum(below + 2, total))
    low, high = (values[order][_rank_position(cumulative, picks, rank)] for rank in ranks)
    return low + np.clip(place - below, 0, 1) * (high - low)


def _rank_position(cumulative: np.ndarray, picks: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """First sorted position (b,) that has ``rank`` (b,) resampled samples up to it."""
    left = np.zeros(len(rank), dtype=np.int64)
    right = np.full(len(rank), len(cumulative) - 1)
    while (left < right).any():
        middle = (left + right) // 2
        enough = (cumulative[middle] * picks).sum(axis=1) >= rank
        left, right = np.where(enough, left, middle + 1), np.where(enough, middle, right)
    return left


def _standard_error(draws: np.ndarray, units: int) -> float:
    """Bootstrap standard error; the factor undoes the shrinkage from resampling few units."""
    return float(draws.std() * np.sqrt(units / (units - 1)))


def _log_interval(value: float, error: float, degrees: float, confidence: float) -> Estimate:
    """``value`` with the interval of Student's t around its logarithm."""
    from scipy.stats import t

    reach = float(t.ppf((1 + confidence) / 2, degrees)) * error
    return Estimate(value, float(value * np.exp(-reach)), float(value * np.exp(reach)))
