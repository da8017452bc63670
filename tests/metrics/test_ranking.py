"""AUROC and average precision against scikit-learn and against counting pairs by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.metrics.ranking import auroc, average_precision, sort_column, weighted_metrics


def _case(seed: int, n: int, distinct: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = [True, False]
    score = rng.integers(0, distinct, n) + 0.5 * positive * rng.integers(0, 2, n)
    return positive, score.astype(np.float32), rng.integers(0, 4, n).astype(np.float64)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([1, 3, 10, 100_000]), st.booleans())
def test_equals_scikit_learn_with_ties_and_weights(seed: int, n: int, distinct: int, fractional: bool) -> None:
    positive, score, weight = _case(seed, n, distinct)
    weight += np.random.default_rng(seed).random(n) if fractional else 0
    weight[:2] += 1
    assert auroc(positive, score) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert average_precision(positive, score) == pytest.approx(average_precision_score(positive, score), abs=1e-12)
    assert auroc(positive, score, weight) == pytest.approx(
        roc_auc_score(positive, score, sample_weight=weight), abs=1e-12
    )
    assert average_precision(positive, score, weight) == pytest.approx(
        average_precision_score(positive, score, sample_weight=weight), abs=1e-12
    )


def test_counts_equal_repeated_records_exactly() -> None:
    positive, score, weight = _case(1, 80, 12)
    counts = weight.astype(np.uint8)
    areas, averages = weighted_metrics(sort_column(positive, score), counts[:, None])
    repeated = np.repeat(np.arange(80), counts)
    assert areas[0] == auroc(positive[repeated], score[repeated])
    assert averages[0] == pytest.approx(average_precision(positive[repeated], score[repeated]), abs=1e-15)


def test_auroc_is_the_exact_share_of_pairs_in_order() -> None:
    positive, score, _ = _case(2, 60, 9)
    pairs = np.sign(score[positive][:, None] - score[~positive][None, :])
    assert auroc(positive, score) == (2 * (pairs > 0).sum() + (pairs == 0).sum()) / (2 * pairs.size)


def test_constant_score_has_auroc_a_half_and_average_precision_the_prevalence() -> None:
    positive = np.arange(40) % 8 == 0
    assert auroc(positive, np.zeros(40)) == 0.5
    assert average_precision(positive, np.zeros(40)) == positive.mean()


def test_large_offset_does_not_merge_distinct_float64_scores() -> None:
    score = 1e6 + np.arange(6) * 1e-9
    assert auroc(np.array([False, False, False, True, True, True]), score) == 1.0


@pytest.mark.parametrize("positives", [0, 10])
def test_one_class_is_undefined_not_zero_and_not_one(positives: int) -> None:
    positive = np.arange(10) < positives
    assert np.isnan(auroc(positive, np.arange(10.0)))
    assert np.isnan(average_precision(positive, np.arange(10.0)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_makes_the_label_undefined(bad: float) -> None:
    score = np.arange(10.0)
    score[3] = bad
    assert np.isnan(auroc(np.arange(10) < 5, score))
    assert np.isnan(auroc(np.arange(10) < 5, np.full(10, bad)))


def test_unknown_labels_are_left_out() -> None:
    positive, score, _ = _case(3, 50, 20)
    known = np.arange(50) % 3 != 1
    lanes = np.ones((50, 1), np.uint8)
    area, average = weighted_metrics(sort_column(positive, score, known=known), lanes)
    assert area[0] == pytest.approx(roc_auc_score(positive[known], score[known]), abs=1e-12)
    assert average[0] == pytest.approx(average_precision_score(positive[known], score[known]), abs=1e-12)


def test_no_known_label_at_all_is_undefined() -> None:
    column = sort_column(np.ones(4, bool), np.arange(4.0), known=np.zeros(4, bool))
    assert np.isnan(weighted_metrics(column, np.ones((4, 2), np.uint8))[0]).all()


def test_weights_of_another_type_are_refused() -> None:
    column = sort_column(np.array([True, False]), np.array([1.0, 0.0]))
    with pytest.raises(TypeError, match="uint8 counts or float64"):
        weighted_metrics(column, np.ones((2, 1), np.int32))
