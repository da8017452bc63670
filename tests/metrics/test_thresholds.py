"""Stored thresholds and fixed operating points against scikit-learn's curves and counts by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_curve

from ecgclip_jax.metrics.operating_points import sensitivity_at, sensitivity_at_specificity, sensitivity_at_top
from ecgclip_jax.metrics.ranking import sort_column
from ecgclip_jax.metrics.resampling import bootstrap_sums, patient_draws
from ecgclip_jax.metrics.thresholds import at_threshold, fit_threshold, threshold_sums


def _case(seed: int, n: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = [True, False]
    return positive, rng.integers(0, distinct, n) + positive * rng.integers(0, 2, n) * 1.0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 50), st.sampled_from([1, 4, 1000]), st.sampled_from([0.0, 0.8, 0.9, 1.0]))
def test_sensitivity_at_specificity_equals_the_roc_curve(seed: int, n: int, distinct: int, specificity: float) -> None:
    positive, score = _case(seed, n, distinct)
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    best = tpr[fpr <= 1 - specificity + 1e-12].max()
    assert sensitivity_at_specificity(positive, score, specificity) == pytest.approx(best, abs=1e-12)


def test_sensitivity_at_the_top_is_the_mean_over_all_orders_of_the_tied() -> None:
    score = np.array([5.0, 3, 3, 3, 3, 1, 1])
    positive = np.array([True, False, True, True, False, True, False])
    for taken in range(8):
        orders = [np.array(order) for order in permutations(range(1, 5))]
        found = [positive[np.concatenate([[0], order, [5, 6]])][:taken].sum() for order in orders]
        if taken == 6:
            found = [f - 0.5 for f in found]  # rows 5 and 6 are tied too: each comes first in half of the orders
        share = sensitivity_at_top(positive, score, taken / 7)
        assert share == pytest.approx(np.mean(found) / 4, abs=1e-12)


def test_the_number_at_the_top_is_rounded_down() -> None:
    positive, score = np.arange(59) < 10, -np.arange(59.0)
    assert sensitivity_at_top(positive, score, 0.05) == 0.2
    assert sensitivity_at_top(np.arange(60) < 10, -np.arange(60.0), 0.05) == 0.3


def test_operating_points_of_draws_and_of_sampling_weights_equal_repeated_records() -> None:
    positive, score = _case(1, 60, 12)
    patient = np.repeat(np.arange(30), 2)
    (counts,) = patient_draws(30, 25, 4)
    found = sensitivity_at(sort_column(positive, score, unit=patient), counts, specificity=0.8, top=0.1)
    for draw in range(25):
        rows = np.repeat(np.arange(60), counts[patient, draw])
        assert found[0, draw] == pytest.approx(sensitivity_at_specificity(positive[rows], score[rows], 0.8))
        assert found[1, draw] == pytest.approx(sensitivity_at_top(positive[rows], score[rows], 0.1))
    weight = np.random.default_rng(0).integers(1, 5, 60)
    one = np.ones((60, 1), np.uint8)
    weighted = sensitivity_at(
        sort_column(positive, score, sampling=weight.astype(float)), one, specificity=0.8, top=1 / 4
    )
    rows = np.repeat(np.arange(60), weight)
    rows = np.repeat(rows, 4)  # so that a quarter of them is a whole number
    repeated = sensitivity_at(
        sort_column(positive[rows], score[rows]), np.ones((len(rows), 1)), specificity=0.8, top=0.25
    )
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)
    undefined = sensitivity_at(sort_column(np.ones(3, bool), np.ones(3)), one[:3], specificity=0.5, top=0.5)
    assert np.isnan(undefined).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_each_rule_picks_the_best_of_all_thresholds(seed: int, weighted: bool) -> None:
    positive, score = _case(seed, 80, 15)
    weight = np.random.default_rng(seed).uniform(0.1, 3, 80) if weighted else None
    candidates = np.unique(score)

    def figure(threshold: float, name: str) -> float:
        called = score >= threshold
        sensitivity = recall_score(positive, called, sample_weight=weight)
        specificity = recall_score(~positive, ~called, sample_weight=weight)
        by_name = {"sensitivity": sensitivity, "specificity": specificity, "youden": sensitivity + specificity}
        return by_name[name] if name in by_name else f1_score(positive, called, sample_weight=weight)

    enough = [t for t in candidates if figure(t, "sensitivity") >= 0.9 - 1e-12]
    assert fit_threshold(positive, score, "sensitivity", 0.9, weight) == max(enough)
    enough = [t for t in candidates if figure(t, "specificity") >= 0.6 - 1e-12]
    assert fit_threshold(positive, score, "specificity", 0.6, weight) == min(enough)
    for rule in ("youden", "f1"):
        chosen = fit_threshold(positive, score, rule, weight=weight)
        assert figure(chosen, rule) == pytest.approx(max(figure(t, rule) for t in candidates))


def test_thresholds_that_cannot_be_picked() -> None:
    positive, score = np.array([True, False]), np.array([0.0, 1.0])
    assert fit_threshold(positive, score, "specificity", 1.0) == math.inf
    for rule in ("sensitivity", "specificity", "youden", "f1"):
        assert math.isnan(fit_threshold(np.ones(2, bool), score, rule))
        assert math.isnan(fit_threshold(positive, np.array([0.0, np.nan]), rule))


def test_a_case_enriched_sample_is_weighted_back_to_its_source() -> None:
    """Every third of the source's negatives with weight 3: PPV and alerts are those of the source."""
    rng = np.random.default_rng(0)
    score = np.repeat(rng.normal(size=200), 3)
    positive = np.repeat(rng.random(200) < 0.2, 3)
    sampled = positive | (np.arange(600) % 3 == 0)
    weight = np.where(positive, 1.0, 3.0)[sampled]
    source = at_threshold(threshold_sums(positive, score, 0.3).sum(axis=1, keepdims=True))
    back = at_threshold(
        threshold_sums(positive[sampled], score[sampled], 0.3, weight=weight).sum(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(back, source, atol=1e-12)
    called = score >= 0.3
    assert source.ppv == pytest.approx(precision_score(positive, called))
    assert source.sensitivity == pytest.approx(recall_score(positive, called))
    assert source.specificity == pytest.approx(recall_score(~positive, ~called))
    assert source.alerts_per_1000 == pytest.approx(1000 * called.mean())
    naive = at_threshold(threshold_sums(positive[sampled], score[sampled], 0.3).sum(axis=1, keepdims=True))
    assert naive.ppv > source.ppv + 0.1


def test_draws_at_a_threshold_equal_repeated_records_and_unknown_labels_do_not_count() -> None:
    positive, score = _case(5, 60, 9)
    known, patient = np.arange(60) % 4 != 0, np.repeat(np.arange(20), 3)
    sums = threshold_sums(positive, score, 5.0, known=known)
    draws = at_threshold(bootstrap_sums([lambda: sums], patient, 20, replicates=15, seed=1)[0])
    (counts,) = patient_draws(20, 15, 1)
    for draw in range(15):
        rows = np.repeat(np.arange(60), counts[patient, draw])
        rows = rows[known[rows]]
        repeated = at_threshold(threshold_sums(positive[rows], score[rows], 5.0).sum(axis=1, keepdims=True))
        np.testing.assert_allclose([figure[draw] for figure in draws], np.ravel(repeated), atol=1e-12)
    nothing = at_threshold(threshold_sums(positive, score, np.inf).sum(axis=1, keepdims=True))
    assert np.isnan(nothing.ppv)
    assert nothing.alerts_per_1000 == 0
