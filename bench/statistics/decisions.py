"""What a difference comes to: decided once, for verdict, tables, notes and comparisons alike.

Of accuracies the test decides, McNemar's over rows or Student's over seeds, adjusted after Holm
for all variants compared: one whose own interval leaves out 0 may still be a tie, since of many
intervals some do by chance. Where there is an interval and no test, it decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from finetune.metrics.classification import CONFIDENCE, PairedDifference

Finding = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; None where one measurement allows none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AccuracyComparison:
    """One variant's accuracy minus the baseline's, a share; ``p_adjusted`` is Holm's.

    ``test`` says how the p-value came about. ``paired`` are the rows behind it, where rows are
    what was compared; over seeds it is None.
    """

    difference: Estimate
    p_value: float
    p_adjusted: float
    test: str
    finding: Finding
    paired: PairedDifference | None = None


def judge_difference(difference: float, p_adjusted: float) -> Finding:
    """What a difference is shown to be, more being better, by its adjusted p-value."""
    if p_adjusted >= 1 - CONFIDENCE:
        return "tie"
    return "better" if difference > 0 else "worse"


def judge_interval(low: float | None, high: float | None, *, more_is_better: bool) -> Finding:
    """What a difference is shown to be by its interval alone; without one, nothing."""
    if low is None or high is None or low <= 0 <= high:
        return "tie"
    return "better" if (low > 0) == more_is_better else "worse"


def ratio_finding(ratio: Estimate, noise_floor: float = 0.0) -> Literal["higher", "lower", "tie"]:
    """Whether a ratio is shown to differ from 1.

    A tie when the interval holds 1, when there is none, or when the ratio lies within the
    ``noise_floor``, the relative difference that an A/A comparison showed.
    """
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return "tie"
    if abs(np.log(ratio.value)) <= np.log1p(noise_floor):
        return "tie"
    return "higher" if ratio.value > 1 else "lower"


def holm_adjust(p_values: Iterable[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(list(p_values), dtype=np.float64)
    return multipletests(given, method="holm")[1] if len(given) else given


def judge_all(compared: Mapping[str, AccuracyComparison]) -> dict[str, AccuracyComparison]:
    """Every comparison with its p-value adjusted for all of them, and what it then shows."""
    adjusted = holm_adjust(one.p_value for one in compared.values()).tolist()
    return {
        name: replace(one, p_adjusted=p, finding=judge_difference(one.difference.value, p))
        for (name, one), p in zip(compared.items(), adjusted, strict=True)
    }
