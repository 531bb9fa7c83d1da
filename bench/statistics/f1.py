"""The difference of two macro F1, on the same rows or on different ones, by bootstrap.

F1 depends on the rows only through how often each true class meets each pair of answers, so that
resampling rows is a multinomial draw over the combinations that occur.
"""

from __future__ import annotations

import numpy as np

from bench.statistics.decisions import Estimate
from finetune.metrics.classification import percentile_interval

RESAMPLES = 4_000


def paired_f1_difference(
    truth: np.ndarray, own: np.ndarray, base: np.ndarray, *, seed: int = 0
) -> tuple[Estimate, float]:
    """Macro F1 of ``own`` minus that of ``base`` (n,), percentile interval, two-sided p-value."""
    cells, counts = np.unique(np.stack([truth, own, base]), axis=1, return_counts=True)
    draws = _draw(counts, np.random.default_rng(seed))
    differences = _macro_f1(draws, cells[0], cells[1]) - _macro_f1(draws, cells[0], cells[2])
    return _told(differences)


def unpaired_f1_difference(
    truth: np.ndarray,
    own: np.ndarray,
    base_truth: np.ndarray,
    base: np.ndarray,
    *,
    seed: int = 0,
) -> tuple[Estimate, float]:
    """The same for two independent sets of rows."""
    generator = np.random.default_rng(seed)
    drawn = []
    for classes, answers in ((truth, own), (base_truth, base)):
        cells, counts = np.unique(np.stack([classes, answers]), axis=1, return_counts=True)
        drawn.append(_macro_f1(_draw(counts, generator), cells[0], cells[1]))
    return _told(drawn[0] - drawn[1])


def _draw(counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Counts as they are, then RESAMPLES times resampled: (1 + RESAMPLES, cells)."""
    rows = int(counts.sum())
    return np.vstack([counts, generator.multinomial(rows, counts / rows, size=RESAMPLES)])


def _macro_f1(draws: np.ndarray, truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Macro F1 of each row of ``draws``; a class that is neither true nor answered takes no part,
    as in ``f1_scores``."""
    classes = np.unique(np.concatenate([truth, answers]))
    true, said = (one[:, None] == classes for one in (truth, answers))
    hits = draws @ (true & said)
    total = draws @ true.astype(np.int64) + draws @ said.astype(np.int64)
    per_class = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
    return per_class.sum(axis=1) / (total > 0).sum(axis=1)


def _told(differences: np.ndarray) -> tuple[Estimate, float]:
    """The observed difference, the interval of the drawn ones, how often they cross 0."""
    value, drawn = float(differences[0]), differences[1:]
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Estimate(value, *percentile_interval(drawn)), float(p)
