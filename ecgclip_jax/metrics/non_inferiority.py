"""Is one model at most a stated margin worse than another? The margin is named before the figures are looked at."""

from __future__ import annotations

from typing import NamedTuple

from ecgclip_jax.metrics.intervals import Interval


class NonInferiority(NamedTuple):
    """A verdict and what it rests on."""

    difference: float
    """New minus reference; higher is better."""
    low: float
    """Lower end of the difference's interval."""
    margin: float
    holds: bool
    """The whole interval lies above -margin: at 95 % a one-sided test at 2.5 %."""
    superior: bool
    """The whole interval lies above 0, which needs no correction after non-inferiority (a closed test)."""


def non_inferiority(difference: float, interval: Interval, margin: float) -> NonInferiority:
    """Judges a paired difference (new - reference, higher is better) by its interval.

    A difference or interval that is undefined does not hold.

    Raises:
        ValueError: a margin that is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"a non-inferiority margin is above 0, found {margin:g}")
    return NonInferiority(difference, interval.low, margin, interval.low > -margin, interval.low > 0)
