"""Accuracy, F1, intervals and paired tests: NumPy in, frozen dataclasses out.

Everything here works on counts (a confusion matrix, a 2 x 2 table), so that a bootstrap over
50,000 rows draws a handful of multinomial cells instead of resampling rows: for a statistic
that depends on the rows only through their counts, both are the same bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune.core.errors import TrainingError

CONFIDENCE = 0.95
RESAMPLES = 10_000
EXACT_BELOW = 25  # discordant rows; below, chi-squared is no good approximation to the binomial
Interval = tuple[float, float]


@dataclass(frozen=True)
class F1Scores:
    """The four averages of F1; floats, or arrays with one value per confusion matrix."""

    binary: Any
    macro: Any
    micro: Any
    weighted: Any


@dataclass(frozen=True)
class ClassificationMetrics:
    """One model on one set of rows; shares between 0 and 1, ``loss`` in nats per row."""

    rows: int
    accuracy: float
    accuracy_interval: Interval
    f1_binary: float | None
    f1_macro: float
    f1_micro: float
    f1_weighted: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON (tuples become lists there)."""
        return asdict(self)


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a variant minus that of the baseline on the same rows, as shares.

    ``gained`` rows are right only in the variant, ``lost`` only in the baseline; ``p_value``
    is McNemar's, two-sided, ``test`` says which form of it ("exact" | "chi-squared").
    """

    rows: int
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    test: str


def classification_metrics(
    labels: np.ndarray, logits: np.ndarray, confidence: float = CONFIDENCE
) -> ClassificationMetrics:
    """Accuracy, F1 and mean cross-entropy of ``logits`` (n, k) against ``labels`` (n,).

    ``f1_binary`` is None unless there are two classes; class 1 is the positive one.
    Raises TrainingError on logits that are not finite, ValueError on shapes that do not match.
    """
    from scipy.special import log_softmax

    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"labels (n,) and logits (n, k) expected: {labels.shape}, {logits.shape}")
    if not np.isfinite(logits).all():
        raise TrainingError(
            "the model's outputs are not finite numbers; training has diverged",
            next_step="a lower training.learning_rate, or full precision",
        )
    table = confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1])
    correct, scores = int(np.trace(table)), f1_scores(table)
    own = log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return ClassificationMetrics(
        rows=len(labels),
        accuracy=correct / len(labels),
        accuracy_interval=wilson_interval(correct, len(labels), confidence),
        f1_binary=None if scores.binary is None else float(scores.binary),
        f1_macro=float(scores.macro),
        f1_micro=float(scores.micro),
        f1_weighted=float(scores.weighted),
        loss=float(-own.mean()),
        confusion=tuple(tuple(int(count) for count in row) for row in table),
    )


def class_figures(confusion: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class its rows, how many were predicted, precision, recall and F1; None for 0 / 0."""
    table = np.asarray(confusion)
    hits, rows, predicted = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)

    def share(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "label": label,
            "rows": int(rows[place]),
            "predicted": int(predicted[place]),
            "precision": share(hits[place], predicted[place]),
            "recall": share(hits[place], rows[place]),
            "f1": share(2 * hits[place], rows[place] + predicted[place]),
        }
        for place, label in enumerate(labels)
    ]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (k, k): rows are true classes, columns predicted ones.

    Raises ValueError on a class id outside 0 … k-1 or on lengths that differ.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"{labels.shape} labels but {predicted.shape} predictions")
    both = np.concatenate([labels, predicted])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ValueError(f"class ids must lie in 0 … {classes - 1}: {both.min()} … {both.max()}")
    cells = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def f1_scores(confusion: np.ndarray) -> F1Scores:
    """F1 of confusion counts (…, k, k), one score per leading index.

    As in scikit-learn, a class that is neither true nor predicted anywhere takes no part in the
    macro mean, and one that is only true or only predicted scores 0. Micro F1 of single-label
    rows is accuracy. ``binary`` is None unless k is 2.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, guessed = counts.sum(axis=-1), counts.sum(axis=-2)
    total = support + guessed
    per_class = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    rows = support.sum(axis=-1)
    return F1Scores(
        binary=per_class[..., 1] if counts.shape[-1] == 2 else None,
        macro=per_class.sum(axis=-1) / (total > 0).sum(axis=-1),
        micro=hits.sum(axis=-1) / rows,
        weighted=(per_class * support).sum(axis=-1) / rows,
    )


def wilson_interval(correct: int, rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    from statsmodels.stats.proportion import proportion_confint

    if not 0 <= correct <= rows or not rows:
        raise ValueError(f"{correct} of {rows} rows is no share")
    low, high = proportion_confint(correct, rows, alpha=1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def f1_interval(
    confusion: np.ndarray,
    average: str = "macro",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap interval of one average of F1, from confusion counts (k, k).

    ``average`` is a field of F1Scores. Resampling n rows with replacement is one multinomial
    draw over the cells.
    """
    table = np.asarray(confusion)
    draws = _resample_cells(table, seed, resamples)
    scores = getattr(f1_scores(draws), average)
    if scores is None:
        raise ValueError(f"F1 {average} needs two classes, not {len(table)}")
    return percentile_interval(scores, confidence)


def paired_difference(
    correct: np.ndarray,
    baseline_correct: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Compare two models on the same rows: booleans (n,), whether each row was right.

    The interval is the paired percentile bootstrap; the test is McNemar's.
    """
    right, base = np.asarray(correct, dtype=bool), np.asarray(baseline_correct, dtype=bool)
    if right.shape != base.shape or right.ndim != 1 or not len(right):
        raise ValueError(f"two arrays (n,) expected: {right.shape}, {base.shape}")
    table = confusion_matrix(right.astype(np.int64), base.astype(np.int64), 2)
    gained, lost = int(table[1, 0]), int(table[0, 1])
    draws = _resample_cells(table, seed, resamples)
    differences = (draws[:, 1, 0] - draws[:, 0, 1]) / len(right)
    p_value, test = mcnemar_test(gained, lost)
    return PairedDifference(
        rows=len(right),
        difference=(gained - lost) / len(right),
        interval=percentile_interval(differences, confidence),
        gained=gained,
        lost=lost,
        p_value=p_value,
        test=test,
    )


def mcnemar_test(gained: int, lost: int) -> tuple[float, str]:
    """Two-sided p-value of McNemar's test over the discordant rows, and its form.

    Exact (binomial) below EXACT_BELOW discordant rows, otherwise chi-squared with continuity
    correction (Edwards 1948). Without discordant rows p is 1.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    exact = gained + lost < EXACT_BELOW
    form = "exact" if exact else "chi-squared"
    if gained + lost == 0:
        return 1.0, form
    result = mcnemar([[0, gained], [lost, 0]], exact=exact, correction=True)
    return float(result.pvalue), form


def percentile_interval(draws: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The central share of bootstrap draws (m,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _resample_cells(table: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Bootstrap counts (m, *table.shape) of the same total as ``table``."""
    rows = int(table.sum())
    if rows == 0:
        raise ValueError("a bootstrap needs at least one row")
    draws = np.random.default_rng(seed).multinomial(rows, table.ravel() / rows, size=resamples)
    return draws.reshape(resamples, *table.shape)
