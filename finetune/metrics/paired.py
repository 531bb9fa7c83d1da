"""What a variant loses against a baseline on the same rows, with intervals few rows cannot fool.

A bootstrap of rows that all agree has no width, however few they are. The intervals here keep
one: Tango's score interval for shares, and for error rates a bootstrap with two made-up rows,
one better and one worse by one error (Agresti and Min 2005 add half a row to each cell).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finetune.metrics.classification import CONFIDENCE, Interval, mcnemar_test
from finetune.metrics.word_errors import ratio_interval


@dataclass(frozen=True)
class PairedLoss:
    """Errors of a variant minus those of the baseline, as a share of the units both were asked.

    Positive: the variant is worse. ``proven``: a test tells the difference from none. A row is
    asked ``units`` on average, and its difference in errors has ``variance``.
    """

    rows: int
    lost: float
    interval: Interval
    proven: bool
    units: float
    variance: float


@dataclass(frozen=True)
class ErrorCounts:
    """Per row, int64 (n,): errors made, units asked for; a label is one unit, a word another."""

    errors: np.ndarray
    units: np.ndarray

    def __len__(self) -> int:
        return len(self.units)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            np.concatenate([self.errors, other.errors]), np.concatenate([self.units, other.units])
        )

    def first(self, count: int) -> ErrorCounts:
        """Those of the first rows."""
        return ErrorCounts(self.errors[:count], self.units[:count])


def label_loss(counts: ErrorCounts, baseline: ErrorCounts) -> PairedLoss:
    """Of rows with one label each: Tango's interval, proven by McNemar's test."""
    rows = len(counts)
    gained = int((counts.errors < baseline.errors).sum())
    lost = int((counts.errors > baseline.errors).sum())
    p_value, _ = mcnemar_test(gained, lost)
    return PairedLoss(
        rows=rows,
        lost=(lost - gained) / rows,
        interval=tango_interval(rows, lost, gained),
        proven=p_value < 1 - CONFIDENCE,
        units=1.0,
        variance=float((counts.errors - baseline.errors).var()),
    )


def rate_loss(counts: ErrorCounts, baseline: ErrorCounts) -> PairedLoss:
    """Of recordings with many words each: bootstrap over recordings, proven where it excludes 0.

    Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation".
    """
    gaps, units = counts.errors - baseline.errors, counts.units
    total = max(1, int(units.sum()))
    low, high = ratio_interval(
        np.concatenate([gaps, [1, -1]]),
        np.concatenate([units, [total / len(units)] * 2]),
    )
    return PairedLoss(
        rows=len(counts),
        lost=float(gaps.sum() / total),
        interval=(low, high),
        proven=low > 0 or high < 0,
        units=total / len(counts),
        variance=float(gaps.var()),
    )


def rows_needed(loss: PairedLoss, allowed: float, confidence: float = CONFIDENCE) -> int | None:
    """About how many rows would tell whether more than ``allowed`` is lost, if it stays so.

    Where the estimate is within the allowance, its interval must end there; beyond it, the loss
    must be told from none. The width is that of ``n`` rows with the variance seen, and of a
    little more, which is what keeps the intervals here open: without variance it is Tango's.
    None where no number would do: at the allowance itself.
    """
    from scipy.stats import norm

    room = allowed - loss.lost if loss.lost <= allowed else loss.lost
    if room <= 0:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    reach = room * loss.units / z
    root = math.sqrt(loss.variance**2 + (2 * z * reach) ** 2)
    return max(loss.rows, math.ceil((loss.variance + root) / (2 * reach**2)))


def tango_interval(rows: int, lost: int, gained: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of ``(lost - gained) / rows`` (Tango 1998, Statistics in Medicine 17).

    Without discordant rows it still reaches z²/(n + z²) to both sides.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    estimate = (lost - gained) / rows

    def distance(difference: float) -> float:
        return _score(difference, rows, lost, gained)

    edge = 1 - 1e-12
    low = -1.0 if estimate <= -edge else brentq(lambda at: distance(at) - z, -edge, estimate)
    high = 1.0 if estimate >= edge else brentq(lambda at: distance(at) + z, estimate, edge)
    return float(low), float(high)


def _score(difference: float, rows: int, lost: int, gained: int) -> float:
    """How many standard errors the counts lie above a true ``difference``."""
    a = 2 * rows
    b = -lost - gained + (2 * rows - lost + gained) * difference
    c = -gained * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = rows * (2 * share + difference * (1 - difference))
    above = lost - gained - rows * difference
    if variance <= 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)
