"""The compiled passes against plain numpy, on random leads with gaps, held stretches, rails and missing leads."""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.signal import lead_passes
from ecgclip_jax.spec.signal import MISSING_UV


def recording(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    by_lead = rng.integers(-40, 40, (6, int(rng.choice([0, 1, 24, 25, 26, 249, 700])))).astype(np.int16)
    by_lead *= np.int16(rng.choice([1, 800]))
    for lead in rng.integers(0, 6, 6):
        start, length = rng.integers(0, by_lead.shape[1] + 1), int(rng.choice([1, 12, 60, 700]))
        value = rng.choice([MISSING_UV, MISSING_UV, 32767, -32767, 0])
        by_lead[lead, start : start + length] = value
    if rng.random() < 0.5:
        by_lead[:, 20:90] = by_lead[:, 20:21]
    return by_lead


def _moments(by_lead: np.ndarray, chosen: np.ndarray) -> tuple[int, np.ndarray]:
    """How many samples all chosen leads have, and every lead there, in Python's integers; others are zero."""
    together = (by_lead[chosen] != MISSING_UV).all(axis=0)
    return int(together.sum()), np.where(chosen[:, None], by_lead, 0)[:, together].astype(object)


CASES = pytest.mark.parametrize("seed", range(40))


@CASES
def test_extremes(seed: int) -> None:
    by_lead = recording(seed)
    n_present, lowest, piece_lowest, piece_highest = lead_passes.extremes(by_lead, 25)
    present = by_lead != MISSING_UV
    np.testing.assert_array_equal(n_present, present.sum(axis=1))
    np.testing.assert_array_equal(lowest, np.where(present, by_lead, 32767).min(axis=1, initial=32767))
    pieces = [by_lead[:, start : start + 25] for start in range(0, by_lead.shape[1], 25)]
    assert piece_lowest.shape == piece_highest.shape == (6, len(pieces))
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(piece_lowest[:, number], piece.min(axis=1))
        np.testing.assert_array_equal(piece_highest[:, number], piece.max(axis=1))


@CASES
def test_held(seed: int) -> None:
    by_lead, chosen = recording(seed), np.random.default_rng(seed).random(6) < 0.8
    expected = np.zeros(by_lead.shape[1], bool)
    some = by_lead[chosen]
    expected[1:] = ((some[:, 1:] == some[:, :-1]) & (some[:, 1:] != MISSING_UV)).all(axis=0)
    np.testing.assert_array_equal(lead_passes.held(by_lead, chosen), expected)


def _longest(chosen: np.ndarray) -> int:
    runs = "".join("x" if one else " " for one in chosen).split()
    return max((len(run) for run in runs), default=0)


@CASES
def test_runs_and_rests(seed: int) -> None:
    by_lead = recording(seed)
    if not by_lead.shape[1]:
        assert lead_passes.longest_run(np.zeros(0, bool)) == 0
        return
    excepted = lead_passes.held(by_lead, np.ones(6, bool))
    assert lead_passes.longest_run(excepted) == _longest(excepted)
    for value in (by_lead.max(axis=1), by_lead.min(axis=1)):
        longest = [_longest((lead == v) & ~excepted) for lead, v in zip(by_lead, value, strict=True)]
        for at_least in (1, 12, 50):
            found = lead_passes.rests(by_lead, value, excepted, at_least, 30)
            far = np.abs(value.astype(int)) >= 30
            np.testing.assert_array_equal(found, far & (np.array(longest) >= at_least))


@CASES
def test_moments(seed: int) -> None:
    by_lead, chosen = recording(seed), np.random.default_rng(seed).random(6) < 0.8
    n, counted = _moments(by_lead, chosen)
    n_together, sums, products = lead_passes.moments(by_lead, chosen)
    assert n_together == n
    assert sums.tolist() == [int(lead.sum()) for lead in counted]
    assert products.tolist() == [[int((a * b).sum()) for b in counted] for a in counted]


@CASES
def test_residuals(seed: int) -> None:
    by_lead, chosen = recording(seed), np.random.default_rng(seed).random(6) < 0.9
    constraints = np.array([[1.0, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0]])
    n, counted = _moments(by_lead, chosen)
    found, rms = lead_passes.residuals(by_lead, chosen, constraints, 20)
    if n < 20:
        assert np.isnan(found).all()
        return
    about = (constraints != 0)[:, ~chosen].any(axis=1)
    spread = (constraints @ counted.astype(float)).std(axis=1)
    np.testing.assert_allclose(found, np.where(about, np.nan, spread), rtol=1e-6, atol=1e-3)
    assert rms == pytest.approx(np.sqrt(counted.astype(float).var(axis=1).sum() / max(chosen.sum(), 1)), rel=1e-9)


@CASES
def test_swings(seed: int) -> None:
    by_lead, half, per_beat = recording(seed), 5, 8
    _, _, lowest, highest = lead_passes.extremes(by_lead, half)
    n_whole = by_lead.shape[1] // half
    found = lead_passes.qrs_swings(lowest, highest, n_whole, per_beat)
    for lead, told in zip(by_lead, found, strict=True):
        windows = [lead[half * k : half * (k + 2)].astype(int) for k in range(n_whole - 1)]
        swings = [np.nan if MISSING_UV in window else np.ptp(window) for window in windows]
        starts = range(0, max(len(swings) - per_beat // 2, 1), per_beat)
        beats = [max((s for s in swings[start : start + per_beat] if s == s), default=np.nan) for start in starts]
        known = [beat for beat in beats if beat == beat]
        assert told == pytest.approx(np.median(known) if known else np.nan, nan_ok=True)


@pytest.mark.parametrize("n", range(6))
def test_median(n: int) -> None:
    values = np.random.default_rng(n).normal(size=8)
    expected = np.median(values[:n]) if n else np.nan
    assert lead_passes.median(values, n) == pytest.approx(expected, nan_ok=True)
