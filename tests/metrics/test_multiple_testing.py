"""Adjusted p values against scipy and by hand; non-inferiority."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from ecgclip_jax.metrics.intervals import Interval
from ecgclip_jax.metrics.multiple_testing import benjamini_hochberg, holm
from ecgclip_jax.metrics.non_inferiority import non_inferiority


def test_benjamini_hochberg_equals_scipy() -> None:
    for seed in range(5):
        p = np.round(np.random.default_rng(seed).random(17) ** 2, 2)
        np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p), atol=1e-15)


def test_holm_by_hand_and_by_its_definition() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    p = np.random.default_rng(1).random(12) ** 3
    adjusted, ordered = holm(p), np.sort(p)
    for i, value in enumerate(p):
        rank = int(np.searchsorted(ordered, value))
        by_definition = min(1.0, max((len(p) - j) * ordered[j] for j in range(rank + 1)))
        assert adjusted[i] == pytest.approx(by_definition)


def test_undefined_tests_do_not_count() -> None:
    p = np.array([0.02, np.nan, 0.01])
    np.testing.assert_allclose(holm(p), [0.02, np.nan, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, np.nan, 0.02])
    assert np.isnan(holm(np.full(3, np.nan))).all()


def test_non_inferiority_is_judged_by_the_whole_interval() -> None:
    assert non_inferiority(-0.01, Interval(-0.019, 0.0, 0.0), 0.02)[3:] == (True, False)
    assert non_inferiority(-0.01, Interval(-0.021, 0.0, 0.0), 0.02)[3:] == (False, False)
    assert non_inferiority(0.03, Interval(0.01, 0.05, 0.0), 0.02)[3:] == (True, True)
    assert not non_inferiority(np.nan, Interval(np.nan, np.nan, 1.0), 0.02).holds
    with pytest.raises(ValueError, match="margin is above 0"):
        non_inferiority(0.0, Interval(-0.1, 0.1, 0.0), -0.02)
