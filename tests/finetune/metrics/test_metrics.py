"""Accuracy, F1, intervals and paired tests against scikit-learn, SciPy and statsmodels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar

from finetune.core.errors import TrainingError
from finetune.metrics.classification import (
    classification_metrics,
    confusion_matrix,
    f1_interval,
    f1_scores,
    mcnemar_test,
    paired_difference,
    wilson_interval,
)


def _rows(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.2
    return labels, logits


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_metrics_agree_with_scikit_learn(classes: int) -> None:
    labels, logits = _rows(400, classes)
    found = classification_metrics(labels, logits)
    predicted = logits.argmax(axis=1)
    assert found.rows == 400
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(labels, predicted, average=average)
        assert getattr(found, f"f1_{average}") == pytest.approx(expected)
    if classes == 2:
        assert found.f1_binary == pytest.approx(sk.f1_score(labels, predicted))
    else:
        assert found.f1_binary is None
    exponents = np.exp(logits)
    loss = sk.log_loss(labels, exponents / exponents.sum(axis=1, keepdims=True))
    assert found.loss == pytest.approx(loss)
    assert np.array_equal(found.confusion, sk.confusion_matrix(labels, predicted))


def test_classification_metrics_are_json_ready() -> None:
    told = json.loads(json.dumps(classification_metrics(*_rows(50, 2)).as_dict(), allow_nan=False))
    assert told["rows"] == 50
    assert told["accuracy_interval"][0] <= told["accuracy"] <= told["accuracy_interval"][1]
    assert np.array(told["confusion"]).shape == (2, 2)


def test_diverged_logits_are_refused() -> None:
    labels, logits = _rows(10, 2)
    logits[3, 1] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        classification_metrics(labels, logits)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.zeros(3, int), np.zeros((4, 2))),
        (np.zeros(0, int), np.zeros((0, 2))),
        (np.array([0, 2]), np.zeros((2, 2))),
    ],
)
def test_rows_that_do_not_match_are_refused(labels: np.ndarray, logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected|class ids"):
        classification_metrics(labels, logits)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60),
)
def test_f1_is_scikit_learns_also_where_classes_are_absent(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    found = f1_scores(confusion_matrix(truth, predicted, 4))
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(truth, predicted, average=average, zero_division=0)
        assert getattr(found, average) == pytest.approx(expected)


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81/263, 15/148, 0/20, 1/29
    for correct, rows, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(correct, rows) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_is_scipys(case: tuple[int, int]) -> None:
    correct, rows = case
    low, high = wilson_interval(correct, rows)
    assert 0 <= low <= correct / rows + 1e-12
    assert correct / rows - 1e-12 <= high <= 1
    expected = stats.binomtest(correct, rows).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_mcnemar_is_exact_when_few_rows_are_discordant() -> None:
    p, form = mcnemar_test(3, 12)
    assert form == "exact"
    assert p == pytest.approx(stats.binomtest(3, 15).pvalue)
    p, form = mcnemar_test(59, 6)  # Agresti-style table: chi-squared with continuity correction
    assert form == "chi-squared"
    assert p == pytest.approx(stats.chi2.sf((abs(59 - 6) - 1) ** 2 / 65, df=1))
    assert p == pytest.approx(mcnemar([[10, 59], [6, 10]], exact=False).pvalue)
    assert mcnemar_test(0, 0) == (1.0, "exact")


def test_mcnemar_is_the_published_example() -> None:
    """Agresti 2002, section 10.1.1, approval of a prime minister: 86 and 150, z = -4.17."""
    p, form = mcnemar_test(86, 150)
    assert form == "chi-squared"
    corrected = 4.17 * (150 - 86 - 1) / (150 - 86)
    assert np.sqrt(stats.chi2.isf(p, df=1)) == pytest.approx(corrected, abs=0.005)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_does_not_care_who_is_the_baseline(gained: int, lost: int) -> None:
    p, form = mcnemar_test(gained, lost)
    assert (p, form) == mcnemar_test(lost, gained)
    assert 0 <= p <= 1


def test_paired_difference_is_signed_and_seeded() -> None:
    generator = np.random.default_rng(4)
    base = generator.random(5_000) < 0.85
    better = base | (generator.random(5_000) < 0.1)
    found = paired_difference(better, base)
    assert found.difference == pytest.approx(better.mean() - base.mean())
    assert (found.gained, found.lost) == (int((better & ~base).sum()), 0)
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.p_value < 1e-6
    assert found == paired_difference(better, base)
    reverse = paired_difference(base, better)
    assert reverse.difference == -found.difference
    assert reverse.p_value == found.p_value


def test_identical_predictions_show_no_difference() -> None:
    right = np.arange(100) % 3 > 0
    found = paired_difference(right, right)
    assert (found.difference, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_paired_interval_is_that_of_resampled_rows() -> None:
    """The multinomial shortcut against SciPy's bootstrap over rows."""
    generator = np.random.default_rng(8)
    base = generator.random(800) < 0.8
    other = np.where(generator.random(800) < 0.1, ~base, base)
    found = paired_difference(other, base).interval
    expected = stats.bootstrap(
        (other.astype(float), base.astype(float)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.004)


def test_f1_interval_is_that_of_resampled_rows() -> None:
    labels, logits = _rows(300, 3, seed=2)
    predicted = logits.argmax(axis=1)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(1_000):
        rows = generator.integers(0, 300, 300)
        draws.append(sk.f1_score(labels[rows], predicted[rows], average="macro"))
    found = f1_interval(confusion_matrix(labels, predicted, 3), "macro")
    assert found == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.012)


def test_f1_interval_refuses_a_binary_score_of_three_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        f1_interval(np.eye(3, dtype=int), "binary")
