"""Survival metrics against double loops, a textbook example by hand, and what censoring must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecgclip_jax.metrics.survival import auroc_at, concordance_draws, concordance_index


def cohort(seed: int, n: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    time, risk = rng.uniform(0, 6, n), rng.normal(size=n)
    if ties:
        time, risk = time.round(0), risk.round(0)
    return time, rng.random(n) < 0.5, risk


def slow_concordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    score, pairs = 0.0, 0
    for i in range(len(time)):
        for j in range(len(time)):
            known = event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j]))
            pairs += known
            score += known * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
    return score / pairs


def slow_auroc(time: np.ndarray, event: np.ndarray, risk: np.ndarray, horizon: float, weighted: bool) -> float:
    def followed(until: float) -> float:
        curve = 1.0
        for moment in sorted({t for t, e in zip(time, event, strict=True) if not e and t < until}):
            gone = sum((time == moment) & ~event)
            at_risk = sum((time > moment) | ((time == moment) & ~event))
            curve *= 1 - gone / at_risk
        return curve

    score = total = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and time[i] <= horizon < time[j]:
                weight = 1 / followed(time[i]) if weighted else 1.0
                total += weight
                score += weight * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
    return score / total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
def test_both_metrics_equal_their_double_loop(seed: int, ties: bool) -> None:
    time, event, risk = cohort(seed, ties=ties)
    assert concordance_index(time, event, risk) == pytest.approx(slow_concordance(time, event, risk), abs=1e-12)
    for horizon in (1.0, 3.0):
        for weighted in (True, False):
            found = auroc_at(time, event, risk, horizon, censoring_weights=weighted)
            assert found == pytest.approx(slow_auroc(time, event, risk, horizon, weighted), abs=1e-12)


def test_by_hand() -> None:
    # Events at 1 and 3, censored at 2 and 4. Known pairs: 1 before each of the three, 3 before 4.
    time, event = np.array([1.0, 2, 3, 4]), np.array([True, False, True, False])
    risk = np.array([0.5, 0.9, 0.1, 0.3])
    assert concordance_index(time, event, risk) == pytest.approx(2 / 4)
    # At 3.5: cases 1 (weight 1) and 3 (one of three at risk was censored at 2: 3/2), control 4.
    assert auroc_at(time, event, risk, 3.5) == pytest.approx(1 / 2.5)
    assert auroc_at(time, event, risk, 3.5, censoring_weights=False) == pytest.approx(1 / 2)


def test_a_perfect_and_a_reversed_score() -> None:
    time, event, _ = cohort(5, ties=False)
    for sign in (1, -1):
        assert concordance_index(time, event, -sign * time) == (sign + 1) / 2
        assert auroc_at(time, event, -sign * time, 3.0) == pytest.approx((sign + 1) / 2)


def test_weights_undo_censoring_that_depends_on_time_alone() -> None:
    """Cases that come late are lost more often; without weights the estimate leans to the early ones."""
    rng = np.random.default_rng(0)
    n = 200_000
    risk = rng.normal(size=n)
    event_time = rng.exponential(np.exp(-risk - 0.6 * risk * np.abs(risk)) * 4)
    censored_at = rng.exponential(2.0, n)
    time, event = np.minimum(event_time, censored_at), event_time <= censored_at
    truth = auroc_at(event_time, np.ones(n, bool), risk, 3.0)
    weighted, plain = (auroc_at(time, event, risk, 3.0, censoring_weights=w) for w in (True, False))
    assert abs(weighted - truth) < 0.005 < abs(plain - truth)


def test_undefined_is_nan() -> None:
    time, event, risk = np.array([1.0, 2.0]), np.array([False, False]), np.array([0.0, 1.0])
    assert math.isnan(concordance_index(time, event, risk))
    assert math.isnan(auroc_at(time, event, risk, 1.5))
    assert math.isnan(auroc_at(time, ~event, risk, 5.0))
    assert math.isnan(concordance_index(time, ~event, np.array([np.nan, 1.0])))


def test_draws_count_pairs_as_often_as_both_were_drawn() -> None:
    time, event, risk = cohort(4, n=40)
    patient, weight = np.arange(40) // 2, np.random.default_rng(1).uniform(0.5, 3, 40)
    counts = np.random.default_rng(0).integers(0, 3, (20, 5)).astype(np.uint8)
    found = concordance_draws(time, event, risk, patient, [counts[:, :2], counts[:, 2:]], weight)
    for lane, drawn in enumerate([np.ones(20), *counts.T]):
        own, concordant, known = weight * drawn[patient], 0.0, 0.0
        for i in range(40):
            for j in range(40):
                earlier = time[i] < time[j] or (time[i] == time[j] and not event[j])
                if event[i] and earlier and patient[i] != patient[j]:
                    known += own[i] * own[j]
                    concordant += own[i] * own[j] * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
        assert found[lane] == pytest.approx(concordant / known)
    alone = concordance_draws(time, event, risk, np.arange(40), [])
    assert alone[0] == pytest.approx(concordance_index(time, event, risk))
