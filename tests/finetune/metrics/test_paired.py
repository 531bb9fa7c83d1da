"""Paired losses: intervals that stay open on few rows, and how many rows would tell."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.metrics.paired import (
    ErrorCounts,
    label_loss,
    rate_loss,
    rows_needed,
    tango_interval,
)


def labels(wrong: list[int]) -> ErrorCounts:
    return ErrorCounts(np.array(wrong), np.ones(len(wrong), dtype=np.int64))


def pair(rows: int, lost: int, gained: int) -> tuple[ErrorCounts, ErrorCounts]:
    """A variant and its baseline that differ in so many rows."""
    same = rows - lost - gained
    return (
        labels([1] * lost + [0] * gained + [0] * same),
        labels([0] * lost + [1] * gained + [0] * same),
    )


def test_rows_that_all_agree_leave_the_interval_open() -> None:
    z2 = 1.959964**2
    for rows in (20, 200, 2_000):
        low, high = tango_interval(rows, 0, 0)
        assert high == pytest.approx(z2 / (rows + z2), abs=1e-6)
        assert low == pytest.approx(-high)


def test_the_interval_ends_where_mcnemar_s_test_does() -> None:
    """Tango's is the inversion of McNemar's test without continuity correction: χ² = 3.84."""
    assert tango_interval(100, 9, 2)[0] > 0 > tango_interval(100, 8, 2)[0]  # χ² 4.45, 3.6
    assert tango_interval(100, 2, 9) == pytest.approx(
        tuple(-end for end in reversed(tango_interval(100, 9, 2)))
    )


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(400):
        lost, gained, _ = generator.multinomial(120, [0.05, 0.02, 0.93])
        low, high = tango_interval(120, int(lost), int(gained))
        held += low <= 0.03 <= high
    assert held >= 0.92 * 400


def test_a_loss_is_proven_by_the_test_and_not_by_the_estimate() -> None:
    few, many = label_loss(*pair(200, 4, 0)), label_loss(*pair(4_000, 80, 0))
    assert few.lost == many.lost == 0.02
    assert (few.proven, many.proven) == (False, True)


def test_word_errors_are_compared_recording_by_recording() -> None:
    words = np.full(24, 3)
    same = ErrorCounts(np.zeros(24, dtype=np.int64), words)
    loss = rate_loss(same, same)
    assert loss.lost == 0 and loss.interval[0] < -0.02 < 0.02 < loss.interval[1]
    worse = rate_loss(ErrorCounts(np.ones(24, dtype=np.int64), words), same)
    assert worse.lost == pytest.approx(1 / 3) and worse.proven


@pytest.mark.parametrize(("lost", "gained", "allowed"), [(0, 0, 0.01), (3, 2, 0.01), (6, 4, 0.004)])
def test_so_many_rows_do_tell(lost: int, gained: int, allowed: float) -> None:
    rows = 300
    needed = rows_needed(label_loss(*pair(rows, lost, gained)), allowed)
    assert needed > rows
    scale = 1.1 * needed / rows
    low, high = tango_interval(round(scale * rows), round(scale * lost), round(scale * gained))
    assert high <= allowed or low > 0
    assert rows_needed(label_loss(*pair(rows, 3, 0)), 0.01) is None  # at the allowance itself
