"""AUROC and average precision against scikit-learn and against counting pairs by hand."""

from __future__ import annotations

import warnings

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
    areas, averages, _ = weighted_metrics(sort_column(positive, score), counts[:, None])
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


def test_draws_without_a_negative_are_undefined_without_a_warning() -> None:
    column = sort_column(np.array([True, True, False]), np.arange(3.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = weighted_metrics(column, np.array([[1e9], [1e9], [0.0]]), (0.05,))
    assert np.isnan(found).all()


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
    area, average, _ = weighted_metrics(sort_column(positive, score, known=known), lanes)
    assert area[0] == pytest.approx(roc_auc_score(positive[known], score[known]), abs=1e-12)
    assert average[0] == pytest.approx(average_precision_score(positive[known], score[known]), abs=1e-12)


def test_no_known_label_at_all_is_undefined() -> None:
    column = sort_column(np.ones(4, bool), np.arange(4.0), known=np.zeros(4, bool))
    assert np.isnan(weighted_metrics(column, np.ones((4, 2), np.uint8))).all()


def test_weights_of_another_type_are_refused() -> None:
    column = sort_column(np.array([True, False]), np.array([1.0, 0.0]))
    with pytest.raises(TypeError, match="uint8 counts or float64"):
        weighted_metrics(column, np.ones((2, 1), np.int32))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 100_000]), st.sampled_from([0.01, 0.3, 0.9]))
def test_average_precision_at_a_reference_prevalence_equals_re_weighted_negatives(
    seed: int, distinct: int, prevalence: float
) -> None:
    positive, score, weight = _case(seed, 70, distinct)
    weight += 0.1
    odds = weight[positive].sum() * (1 - prevalence) / (prevalence * weight[~positive].sum())
    balanced = np.where(positive, weight, odds * weight)
    assert balanced[positive].sum() / balanced.sum() == pytest.approx(prevalence)
    expected = average_precision_score(positive, score, sample_weight=balanced)
    assert average_precision(positive, score, weight, prevalence=prevalence) == pytest.approx(expected, abs=1e-12)
    own = weight[positive].sum() / weight.sum()
    unchanged = average_precision(positive, score, weight, prevalence=own)
    assert unchanged == pytest.approx(average_precision(positive, score, weight), abs=1e-12)


def test_a_reference_prevalence_makes_hospitals_comparable() -> None:
    """The same model at 2 % and at 30 % prevalence: only the re-weighted one agrees."""
    rng = np.random.default_rng(0)
    found = []
    for prevalence in (0.02, 0.3):
        positive = rng.random(100_000) < prevalence
        score = rng.normal(size=100_000) + 2.0 * positive
        found.append((average_precision(positive, score), average_precision(positive, score, prevalence=0.1)))
    assert found[1][0] - found[0][0] > 0.4
    assert found[0][1] == pytest.approx(found[1][1], abs=0.02)
    with pytest.raises(ValueError, match="between 0 and 1"):
        average_precision(np.arange(4) > 1, np.arange(4.0), prevalence=1.0)


def test_sampling_weights_under_draws_equal_scikit_learn_and_restore_the_source() -> None:
    positive, score, _ = _case(4, 60, 9)
    sampling = np.where(positive, 1.0, 4.0)
    counts = np.random.default_rng(0).integers(0, 4, (60, 12)).astype(np.uint8)
    known = np.arange(60) % 7 != 0
    column = sort_column(positive, score, known=known, sampling=sampling)
    area, average, lift, reference = weighted_metrics(column, counts, (0.05,))
    for draw in range(12):
        weight = (counts[:, draw] * sampling)[known]
        case = positive[known], score[known]
        assert area[draw] == pytest.approx(roc_auc_score(*case, sample_weight=weight), abs=1e-12)
        assert average[draw] == pytest.approx(average_precision_score(*case, sample_weight=weight), abs=1e-12)
        assert lift[draw] == pytest.approx(average[draw] * weight.sum() / weight[case[0]].sum(), abs=1e-12)
        assert reference[draw] == pytest.approx(average_precision(*case, weight, prevalence=0.05), abs=1e-12)
    fourfold = np.repeat(np.arange(60), sampling.astype(int))
    source = average_precision(positive[fourfold], score[fourfold])
    assert average_precision(positive, score, sampling) == pytest.approx(source, abs=1e-12)
    assert abs(average_precision(positive, score) - source) > 0.05
