"""Patient bootstrap: same draws as a loop over repeated records, shared, reproducible, and covering."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.metrics import resampling
from ecgclip_jax.metrics.intervals import percentile_interval
from ecgclip_jax.metrics.ranking import auroc, sort_column
from ecgclip_jax.metrics.resampling import (
    bootstrap_means,
    bootstrap_medians,
    bootstrap_ranking,
    macro_draws,
    patient_draws,
    stratified_draws,
)


def _world(seed: int = 0, patients: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    positive = rng.random(len(patient)) < 0.3
    return patient, positive, np.round(rng.normal(size=len(patient)) + positive, 1)


def test_every_draw_equals_scikit_learn_on_the_repeated_records() -> None:
    patient, positive, score = _world()
    draws = bootstrap_ranking([sort_column(positive, score, unit=patient)], 30, replicates=20, seed=3)
    (counts,) = patient_draws(30, 20, 3)
    for draw in range(20):
        rows = np.repeat(np.arange(len(patient)), counts[patient, draw])
        assert draws[0, 0, draw] == pytest.approx(roc_auc_score(positive[rows], score[rows]), abs=1e-12)
        assert draws[0, 1, draw] == pytest.approx(average_precision_score(positive[rows], score[rows]), abs=1e-12)


def test_draws_do_not_depend_on_the_block_and_draw_as_many_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(patient_draws(17, 50, 1)), axis=1)
    monkeypatch.setattr(resampling, "BLOCK", 7)
    assert np.array_equal(whole, np.concatenate(list(patient_draws(17, 50, 1)), axis=1))
    assert (whole.sum(axis=0) == 17).all()


def test_two_models_share_draws_so_equal_scores_differ_by_exactly_nothing() -> None:
    patient, positive, score = _world()
    columns = [sort_column(positive, s, unit=patient) for s in (score, 3 * score + 1)]
    first, second = bootstrap_ranking(columns, 30, replicates=300, seed=0)
    assert np.array_equal(first, second)


def test_undefined_draws_are_counted_not_redrawn() -> None:
    patient = np.arange(12)
    positive = patient == 4
    draws = bootstrap_ranking([sort_column(positive, patient * 1.0, unit=patient)], 12, replicates=2000, seed=0)
    interval = percentile_interval(draws[0, 0])
    assert interval.discarded == pytest.approx((1 - 1 / 12) ** 12, abs=0.04)
    assert interval.low <= auroc(positive, patient * 1.0) <= interval.high
    nothing = percentile_interval(np.full(10, np.nan))
    assert nothing.discarded == 1.0
    assert np.isnan(nothing.low)


def test_macro_keeps_its_label_list_and_counts_incomplete_draws() -> None:
    mean, incomplete = macro_draws(np.array([[0.5, np.nan, np.nan], [0.7, 0.9, np.nan]]))
    np.testing.assert_allclose(mean, [0.6, 0.9, np.nan])
    assert incomplete == pytest.approx(2 / 3)


def test_means_and_medians_equal_repeated_records() -> None:
    patient, _, score = _world(5)
    means = bootstrap_means(score[None], patient, replicates=30, seed=2)
    medians = bootstrap_medians(score, patient, replicates=30, seed=2)
    (counts,) = patient_draws(30, 30, 2)
    for draw in range(30):
        repeated = np.sort(np.repeat(score, counts[patient, draw]))
        assert means[0, draw] == pytest.approx(repeated.mean(), abs=1e-12)
        assert medians[draw] == repeated[(len(repeated) - 1) // 2]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Two ECGs per patient that share an effect: the 95 % interval covers, one that resamples records covers less."""
    truth, worlds, patients = norm.cdf(1 / np.sqrt(2)), 150, 120
    covered = np.zeros(2)
    rng = np.random.default_rng(0)
    for world in range(worlds):
        sick = np.arange(patients) < 40
        own = sick + np.sqrt(0.9) * rng.normal(size=patients)
        patient = np.repeat(np.arange(patients), 2)
        score = own[patient] + np.sqrt(0.1) * rng.normal(size=2 * patients)
        for level, unit in enumerate((patient, np.arange(2 * patients))):
            column = sort_column(sick[patient], score, unit=unit)
            draws = bootstrap_ranking([column], int(unit.max()) + 1, replicates=300, seed=world)
            interval = percentile_interval(draws[0, 0])
            covered[level] += interval.low <= truth <= interval.high
    assert 0.89 <= covered[0] / worlds <= 0.99
    assert covered[1] < covered[0] - 0.05 * worlds


def test_stratified_draws_keep_the_positives_and_models_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, positive, score = _world(8)
    n, strata = len(positive), positive.astype(np.int64)
    whole = np.concatenate(list(stratified_draws(strata, 40, 6)), axis=1)
    assert (whole[positive].sum(axis=0) == positive.sum()).all()
    assert (whole[~positive].sum(axis=0) == (~positive).sum()).all()
    assert whole.max() > 1
    monkeypatch.setattr(resampling, "BLOCK", 7)
    columns = [sort_column(positive, s) for s in (score, np.exp(score))]
    draws = bootstrap_ranking(columns, n, replicates=40, seed=6, stratum=strata)
    assert np.array_equal(draws[0], draws[1])
    for draw in range(40):
        rows = np.repeat(np.arange(n), whole[:, draw])
        assert draws[0, 1, draw] == pytest.approx(average_precision_score(positive[rows], score[rows]), abs=1e-12)
    assert np.ptp(draws[0, 2] / draws[0, 1]) < 1e-12, "lift over a prevalence that does not move"


def test_memory_does_not_grow_with_the_number_of_draws() -> None:
    patients = 20_000
    positive = np.arange(patients) % 50 == 0
    column = sort_column(positive, np.random.default_rng(0).normal(size=patients))
    bootstrap_ranking([column], patients, replicates=2, seed=0)
    peaks = []
    for replicates in (500, 2000):
        tracemalloc.start()
        bootstrap_ranking([column] * 2, patients, replicates=replicates, seed=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.02 * peaks[0], "only the figures themselves: 24 bytes per draw and column"
