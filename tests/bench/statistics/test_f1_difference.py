"""The difference of macro F1: the observed one, its interval, its p-value."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bench.statistics.f1 import paired_f1_difference, unpaired_f1_difference


def answers(generator: np.random.Generator, truth: np.ndarray, wrong: float) -> np.ndarray:
    return np.where(generator.random(len(truth)) < wrong, (truth + 1) % 3, truth)


@pytest.fixture
def drawn() -> tuple[np.random.Generator, np.ndarray]:
    generator = np.random.default_rng(4)
    return generator, generator.integers(0, 3, 2_000)


def test_the_observed_difference_is_scikit_learns(drawn) -> None:
    generator, truth = drawn
    own, base = answers(generator, truth, 0.1), answers(generator, truth, 0.2)
    own[truth == 2] = 1  # a class that is never answered
    expected = f1_score(truth, own, average="macro") - f1_score(truth, base, average="macro")
    for found, _ in (
        paired_f1_difference(truth, own, base),
        unpaired_f1_difference(truth, own, truth, base),
    ):
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high


def test_what_differs_is_shown_and_what_does_not_is_not(drawn) -> None:
    generator, truth = drawn
    base = answers(generator, truth, 0.15)
    worse = np.where(generator.random(len(truth)) < 0.05, (base + 1) % 3, base)
    found, p = paired_f1_difference(truth, worse, base)
    assert found.high < 0
    assert p < 0.01
    same, p = paired_f1_difference(truth, base, base)
    assert (same.value, same.low, same.high, p) == (0, 0, 0, 1)


def test_one_in_twenty_of_equal_models_differs_by_chance() -> None:
    generator = np.random.default_rng(1)
    called = 0
    for _ in range(40):
        truth = generator.integers(0, 3, 300)
        _, p = paired_f1_difference(
            truth, answers(generator, truth, 0.2), answers(generator, truth, 0.2)
        )
        called += p < 0.05
    assert called <= 6
