"""Bootstrap intervals by hand, and in small how often they hold the truth when positives are few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, t

from benchmarks.bootstrap_coverage import MACRO_SHIFTS, Case, simulate, truths
from ecgclip_jax.metrics.intervals import corrected_interval, difference_interval, seed_interval
from ecgclip_jax.metrics.ranking import auroc, average_precision


def test_corrected_interval_by_hand() -> None:
    draws = np.array([0.5, 0.6, 0.7, 0.9, np.nan])
    moved = logit(draws[:4])
    half = moved.std() * np.sqrt(8 / 7) * t.ppf(0.975, 7)
    centre = 2 * logit(0.6) - moved.mean()
    found = corrected_interval(0.6, draws, 8)
    assert (found.low, found.high) == pytest.approx(tuple(expit([centre - half, centre + half])))
    assert found.discarded == pytest.approx(0.2)
    plain = corrected_interval(0.6, draws, 8, scale="any")
    half = draws[:4].std() * np.sqrt(8 / 7) * t.ppf(0.975, 7)
    assert plain.high - plain.low == pytest.approx(2 * half)
    assert plain.high + plain.low == pytest.approx(2 * (1.2 - draws[:4].mean()))
    ratio = corrected_interval(3.0, np.array([2.0, 3, 4.5]), 50, scale="positive")
    assert ratio.low * ratio.high == pytest.approx(9.0)
    wide = corrected_interval(0.6, draws, 2)
    assert wide.low < 0.01 < 0.99 < wide.high


def test_an_interval_holds_its_value_and_claims_no_certainty() -> None:
    far = corrected_interval(0.6, np.linspace(0.9, 0.95, 50), 30)
    assert far.high == 0.6
    half = corrected_interval(0.5, np.full(9, 0.5), 20)
    assert (half.low, half.high) == (0.5, 0.5)
    perfect = corrected_interval(1.0, np.ones(9), 20)
    assert perfect.high == 1.0
    assert perfect.low == pytest.approx(beta.ppf(0.025, 20, 1)), "Clopper-Pearson"
    assert corrected_interval(0.0, np.zeros(9), 20).high == pytest.approx(beta.ppf(0.975, 1, 20))
    for value, draws in ((np.nan, np.ones(3)), (0.5, np.full(3, np.nan))):
        assert np.isnan(corrected_interval(value, draws, 20).low)


def test_difference_interval_by_hand() -> None:
    rng = np.random.default_rng(0)
    first = 0.8 + 0.05 * rng.normal(size=400)
    second = 0.7 + 0.6 * (first - 0.8) + 0.04 * rng.normal(size=400)
    # On the scale itself it is the interval of the differences.
    plain = difference_interval((0.8, first), (0.7, second), 30, scale="any")
    alone = corrected_interval(0.8 - 0.7, first - second, 30, scale="any")
    assert (plain.low, plain.high) == pytest.approx((alone.low, alone.high), abs=1e-5)
    found = difference_interval((0.8, first), (0.7, second), 30)
    moved = logit(np.stack([first, second]))
    centre = 2 * logit([0.8, 0.7]) - moved.mean(axis=1)
    reach, root = np.sqrt(30 / 29) * t.ppf(0.975, 29), np.linalg.cholesky(np.cov(moved, bias=True))
    circle = np.exp(2j * np.pi * np.arange(5000) / 5000)
    inside = expit(centre[:, None] + reach * root @ np.stack([circle.real, circle.imag]))
    assert found.low == pytest.approx((inside[0] - inside[1]).min(), abs=1e-5)
    assert found.high == pytest.approx((inside[0] - inside[1]).max(), abs=1e-5)
    same = difference_interval((0.8, first), (0.8, first), 30)
    assert (same.low, same.high) == pytest.approx((0.0, 0.0), abs=1e-12)
    swapped = difference_interval((0.7, second), (0.8, first), 30)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-5)
    first[:100], second[100:200] = np.nan, np.nan
    assert difference_interval((0.8, first), (0.7, second), 30).discarded == 0.5
    assert np.isnan(difference_interval((0.8, first), (np.nan, second), 30).low)


def test_seeds_that_agree_give_the_patients_interval_and_others_a_wide_one() -> None:
    patients = 0.02 * np.random.default_rng(0).normal(size=4000)
    agreeing = np.array([0.8, 0.8, 0.8])
    alone = corrected_interval(0.8, 0.8 + patients, 200, scale="any")
    same = seed_interval(agreeing, agreeing[:, None] + patients, 200)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    values = np.array([0.7, 0.8, 0.9])
    wide = seed_interval(values, values[:, None] + 0 * patients, 200)
    assert wide.high - wide.low == pytest.approx(2 * t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
    assert np.isnan(seed_interval(values[:1], patients[None], 200).low)
    assert seed_interval(agreeing, np.full((3, 5), 0.8), 200).low == pytest.approx(0.8)


def test_intervals_over_seeds_and_patients_cover_as_often_as_they_say() -> None:
    """Mean of three seeds: patients move all of them by 0.02, each seed has its own 0.05."""
    covered, patients_only = 0, 0
    for world in range(400):
        rng = np.random.default_rng(world)
        values = 0.02 * rng.normal() + 0.05 * rng.normal(size=3)
        draws = values[:, None] + 0.02 * rng.normal(size=400)
        interval = seed_interval(values, draws, 300)
        covered += interval.low <= 0 <= interval.high
        low, high = np.quantile(draws.mean(axis=0), [0.025, 0.975])
        patients_only += low <= 0 <= high
    assert 0.92 <= covered / 400 <= 0.985
    assert patients_only / 400 < 0.85


def test_the_worlds_of_the_coverage_proof_have_the_truth_it_says() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(400_000) < 0.02
    score = rng.normal(size=400_000) + 2.0 * positive
    assert (auroc(positive, score), average_precision(positive, score)) == pytest.approx(truths(2.0, 0.02), abs=0.01)


def test_few_positives_are_covered_where_percentile_intervals_fail() -> None:
    """The small form of `make proofs bootstrap_coverage`."""
    rare = simulate(10, (3.0,), worlds=60, draws=150)
    macro = simulate(20, MACRO_SHIFTS, worlds=30, draws=150)
    for hits in (
        rare[Case("AUROC", 10, 3.0)],
        rare[Case("AUROC difference", 10, 3.0)],
        macro[Case("macro AP", 20, 2.0)],
    ):
        percentile, reported = (np.mean(part) for part in list(zip(*hits, strict=True))[:2])
        assert reported >= max(0.85, percentile + 0.05)
