"""The paired permutation test against swapping by hand, its p values under the null, and scales that differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.metrics import permutation
from ecgclip_jax.metrics.permutation import paired_permutation, two_sided_p


def _world(seed: int, skill: float = 1.0, patients: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    positive = rng.random((len(patient), 2)) < 0.4
    first, second = (np.round(rng.normal(size=positive.shape) + s * positive, 1) for s in (skill, 1.0))
    known = rng.random(positive.shape) < 0.9
    return {"positive": positive, "known": known, "first": first, "second": second, "patient": patient}


@pytest.mark.parametrize("raw_scores", [True, False])
def test_every_permutation_equals_swapping_the_scores_of_patients(raw_scores: bool) -> None:
    world = _world(0)
    test = paired_permutation(**world, permutations=30, seed=2, raw_scores=raw_scores)
    (swapped,) = permutation._coins(40, 30, 2)
    for label in range(2):
        rows = world["known"][:, label]
        truth = world["positive"][rows, label]
        pair = [world[name][rows, label] for name in ("first", "second")]
        if not raw_scores:
            pair = [rankdata(s) for s in pair]
        for draw in range(30):
            swap = swapped[world["patient"][rows], draw] == 1
            first, second = np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])
            for metric, score in enumerate((roc_auc_score, average_precision_score)):
                by_hand = score(truth, first) - score(truth, second)
                assert test.permuted[label, metric, draw] == pytest.approx(by_hand, abs=1e-12)
        for metric, score in enumerate((roc_auc_score, average_precision_score)):
            by_hand = score(truth, pair[0]) - score(truth, pair[1])
            assert test.observed[label, metric] == pytest.approx(by_hand, abs=1e-12)


def test_p_counts_permutations_at_least_as_far_from_nothing() -> None:
    assert two_sided_p(np.array([0.5]), np.array([[0.5, -0.6, 0.1, -0.2]]))[0] == 3 / 5
    assert two_sided_p(np.array([0.1 + 0.2]), np.array([[0.3]]))[0] == 1.0
    assert np.isnan(two_sided_p(np.array([0.5]), np.array([[0.5, np.nan]])))[0]


def test_equal_models_differ_by_nothing_and_a_better_one_is_found() -> None:
    world = _world(1)
    same = paired_permutation(**world | {"second": 2 * world["first"] + 5}, permutations=50)
    assert (same.p_values() == 1).all()
    better = paired_permutation(**_world(2, skill=4.0, patients=120), permutations=200)
    assert (better.p_values() < 0.01).all()
    assert (better.macro_p(np.array([0, 1])) < 0.01).all()


def test_under_the_null_small_p_values_are_as_rare_as_they_say() -> None:
    p = np.array([paired_permutation(**_world(seed), permutations=99).macro_p(np.arange(2)) for seed in range(200)])
    assert 0.01 <= np.mean(p[:, 0] <= 0.05) <= 0.10
    assert 0.01 <= np.mean(p[:, 1] <= 0.05) <= 0.10
    assert np.mean(p[:, 0]) == pytest.approx(0.5, abs=0.07)


def test_a_score_that_is_not_finite_has_no_test() -> None:
    world = _world(3)
    world["first"][0, 1] = np.nan
    world["known"][0, 1] = True
    p = paired_permutation(**world, permutations=20).p_values()
    assert np.isnan(p[1]).all()
    assert np.isfinite(p[0]).all()
