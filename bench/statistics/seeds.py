"""Several runs of one recipe that differ in their seed: mean, interval and test over seeds.

One run per method says how that run did, not how the method does. Over seeds the unit is the run:
for the mean Student's t on the logit scale (``finetune/metrics/intervals.py``); against the
baseline's recipe the paired t-test where both were trained with the same seeds, else Welch's
(Welch 1947). Where one side has a single run, that run is taken as it is, and the test says
nothing of how another of it would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.statistics.decisions import AccuracyComparison, Estimate
from finetune.metrics.classification import CONFIDENCE
from finetune.metrics.intervals import Range, mean_interval

ALIKE = 1e-9  # shares that differ by less are the same; floats of equal ones do differ
Accuracies = Mapping[int, float]  # seed → accuracy


def mean_over_seeds(values: Sequence[float], within: Range = "share") -> Estimate:
    """The mean of a figure over runs with its interval; none where all are alike."""
    mean, _, interval = mean_interval(values, within)
    return Estimate(mean, *(interval or (None, None)))


def compare_seeds(own: Accuracies, base: Accuracies) -> AccuracyComparison:
    """``own`` minus ``base``: paired where the seeds are the same; p not yet adjusted.

    The interval is cut off where no difference of two shares can lie. Differences without any
    spread leave nothing to hold them against: they have neither interval nor a p-value below 1.
    Raises ValueError where both sides have a single run.
    """
    if len(own) == len(base) == 1:
        raise ValueError("two single runs cannot be compared over seeds")
    difference, p, test = t_test(own, base)
    mean = float(np.mean(list(base.values())))
    lowest, highest = min(-mean, difference.value), max(1 - mean, difference.value)
    low, high = difference.low, difference.high
    if low is not None and high is not None:
        difference = Estimate(difference.value, max(low, lowest), min(high, highest))
    return AccuracyComparison(difference, p, p, test, "tie")


def t_test(own: Accuracies, base: Accuracies) -> tuple[Estimate, float, str]:
    """Difference of the means with Student's interval, p-value, and which test it is.

    Without spread: no interval, and p = 1.
    """
    from scipy.stats import ttest_1samp, ttest_ind

    one, other = (np.array(list(side.values()), dtype=np.float64) for side in (own, base))
    value = float(one.mean() - other.mean())
    if set(own) == set(base):
        differences = np.array([own[seed] - base[seed] for seed in sorted(own)])
        test, alike = "paired t", np.ptp(differences) < ALIKE
    elif min(len(one), len(other)) == 1:
        differences = one - other
        test, alike = "t against one run", np.ptp(differences) < ALIKE
    else:
        differences, test, alike = None, "Welch t", max(np.ptp(one), np.ptp(other)) < ALIKE
    if alike:
        return Estimate(value, None, None), 1.0, test
    found = (
        ttest_ind(one, other, equal_var=False)
        if differences is None
        else ttest_1samp(differences, 0)
    )
    ends = found.confidence_interval(CONFIDENCE)
    return Estimate(value, float(ends.low), float(ends.high)), float(found.pvalue), test
