"""Several runs of one recipe that differ in their seed: mean, interval and test over seeds.

One run per method says how that run did, not how the method does. Over seeds the unit is the run:
Student's t for the mean; against the baseline's recipe the paired t-test where both were trained
with the same seeds, else Welch's (Welch 1947); Holm over all recipes compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.statistics.latency import Estimate, holm_adjust
from finetune.metrics.classification import CONFIDENCE


@dataclass(frozen=True)
class SeedComparison:
    """Mean accuracy over seeds minus the baseline's; ``test`` is "paired t" or "Welch t"."""

    difference: Estimate
    p_value: float
    p_adjusted: float
    test: str
    finding: str


@dataclass(frozen=True)
class SeedSummary:
    """One recipe in one runtime and precision: accuracy by seed, their mean with its interval."""

    name: str
    accuracies: dict[int, float]
    mean: Estimate
    spread: float
    comparison: SeedComparison | None = None


def summarise_seeds(
    groups: Mapping[str, Mapping[int, float]], baseline: str | None
) -> list[SeedSummary]:
    """Groups (name → seed → accuracy) of two seeds or more, compared with ``baseline``'s."""
    found = {name: _describe(name, dict(by)) for name, by in groups.items() if len(by) > 1}
    base = found.get(baseline) if baseline else None
    if base is None:
        return list(found.values())
    others = [one for one in found.values() if one is not base]
    compared = [compare_seeds(one.accuracies, base.accuracies) for one in others]
    adjusted = holm_adjust(one.p_value for one in compared).tolist()
    judged = {
        one.name: replace(one, comparison=_judge(comparison, p))
        for one, comparison, p in zip(others, compared, adjusted, strict=True)
    }
    return [judged.get(name, one) for name, one in found.items()]


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean with Student's t interval; a point where all values are equal."""
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    error = numbers.std(ddof=1) / np.sqrt(len(numbers))
    reach = float(t.ppf((1 + confidence) / 2, len(numbers) - 1) * error)
    mean = float(numbers.mean())
    return Estimate(mean, mean - reach, mean + reach)


def compare_seeds(own: Mapping[int, float], base: Mapping[int, float]) -> SeedComparison:
    """``own`` minus ``base`` (seed → accuracy): paired where the seeds are the same."""
    from scipy.stats import ttest_ind

    if set(own) == set(base):
        differences = [own[seed] - base[seed] for seed in sorted(own)]
        difference = mean_interval(differences)
        p, test = _p_of_differences(np.array(differences)), "paired t"
    else:
        one, other = np.array(list(own.values())), np.array(list(base.values()))
        value = float(one.mean() - other.mean())
        if one.std() == other.std() == 0:
            difference, p = Estimate(value, value, value), float(value == 0)
        else:
            result = ttest_ind(one, other, equal_var=False)
            ends = result.confidence_interval(CONFIDENCE)
            difference, p = Estimate(value, float(ends.low), float(ends.high)), result.pvalue
        test = "Welch t"
    return SeedComparison(difference, float(p), float(p), test, "tie")


def _p_of_differences(differences: np.ndarray) -> float:
    """The paired t-test's p-value; without any spread, 1 for no difference and 0 for one."""
    from scipy.stats import ttest_1samp

    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(ttest_1samp(differences, 0).pvalue)


def _describe(name: str, accuracies: dict[int, float]) -> SeedSummary:
    values = list(accuracies.values())
    return SeedSummary(name, accuracies, mean_interval(values), float(np.std(values, ddof=1)))


def _judge(comparison: SeedComparison, p_adjusted: float) -> SeedComparison:
    shown = p_adjusted < 1 - CONFIDENCE
    finding = ("better" if comparison.difference.value > 0 else "worse") if shown else "tie"
    return replace(comparison, p_adjusted=p_adjusted, finding=finding)
