"""Many p values at once: Holm keeps the chance of any false claim, Benjamini-Hochberg the share of false ones.

NaN (a test that could not be made) stays NaN and does not count as a test.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float


def holm(p: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Holm's step-down adjusted p values (Scand J Stat 1979;6:65): valid whatever the tests' dependence."""
    return _adjusted(p, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Benjamini-Hochberg adjusted p values (J R Stat Soc B 1995;57:289): independent or positively dependent tests."""

    def step_up(ordered: np.ndarray) -> np.ndarray:
        scaled = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
        smallest: np.ndarray = np.minimum.accumulate(scaled[::-1])[::-1]
        return smallest

    return _adjusted(p, step_up)


def _adjusted(p: np.ndarray, adjust: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(adjust(p[order]), 1.0)
    return adjusted
