"""Intervals of a mean over runs that stay where the figure can lie.

Student's t around the mean of three accuracies can end above 100 %. Runs of one recipe answer the
same test rows as clusters of a survey answer one question, so a share's mean gets what surveys
give it: Student's t on the logit scale with the number of runs less one degrees of freedom, the
standard error carried there by the delta method (Korn and Graubard 1998; Dean and Pagano 2015
compare it with others). A figure that is only known to be positive, a loss or an error rate, gets
the same on the log scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from finetune.metrics.classification import CONFIDENCE, Interval

ALIKE = 1e-9  # relative; what floats of equal figures may differ by
Range = Literal["share", "positive"]


def mean_interval(
    values: Sequence[float], within: Range = "share", confidence: float = CONFIDENCE
) -> tuple[float, float | None, Interval | None]:
    """Mean, sample standard deviation and interval of the mean of a figure over runs.

    ``within``: a "share" lies between 0 and 1, a "positive" figure above 0. One value has neither
    deviation nor interval; values that are all alike say nothing of how runs differ, and have no
    interval. Raises ValueError on a value outside the range.
    """
    array = np.asarray(values, dtype=np.float64)
    highest = 1.0 if within == "share" else math.inf
    if not len(array) or array.min() < 0 or array.max() > highest:
        raise ValueError(f"a {within} figure lies between 0 and {highest:g}: {values}")
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return mean, None, None
    if np.ptp(array) < ALIKE * mean or not mean:
        return mean, 0.0, None
    deviation = float(array.std(ddof=1))
    return mean, deviation, _interval(mean, deviation / count**0.5, count - 1, within, confidence)


def _interval(
    mean: float, error: float, degrees: int, within: Range, confidence: float
) -> Interval:
    """Student's t around the mean on the logit or log scale, and back."""
    from scipy.special import expit, logit
    from scipy.stats import t

    reach = float(t.ppf((1 + confidence) / 2, degrees)) * error
    if within == "positive":
        factor = math.exp(reach / mean)
        return mean / factor, mean * factor
    middle, reach = float(logit(mean)), reach / (mean * (1 - mean))
    # rounding must not put an end on the wrong side of the mean
    return min(mean, float(expit(middle - reach))), max(mean, float(expit(middle + reach)))
