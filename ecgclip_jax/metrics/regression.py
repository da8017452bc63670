"""How well numbers are predicted; targets that are NaN are unknown and left out.

All are NaN where they are undefined: no known target, a prediction that is not finite, and for R² and the correlation
fewer than two known targets or no variation among them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Column = Float[np.ndarray, "records"]


def mean_absolute_error(target: Column, predicted: Column) -> float:
    """Mean of |prediction - target|, in the target's unit."""
    known, guess = _known(target, predicted)
    return float(np.abs(guess - known).mean()) if len(known) else float("nan")


def r_squared(target: Column, predicted: Column) -> float:
    """1 - squared error / squared deviation from the targets' own mean: 0 for who always says the mean, or below."""
    known, guess = _known(target, predicted)
    spread = np.square(known - known.mean()).sum() if len(known) > 1 else 0.0
    return float(1 - np.square(guess - known).sum() / spread) if spread > 0 else float("nan")


def pearson_r(target: Column, predicted: Column) -> float:
    """Pearson's correlation; also NaN where the predictions do not vary."""
    known, guess = _known(target, predicted)
    if len(known) < 2:
        return float("nan")
    known, guess = known - known.mean(), guess - guess.mean()
    length = np.sqrt(np.square(known).sum() * np.square(guess).sum())
    return float(np.clip(known @ guess / length, -1, 1)) if length > 0 else float("nan")


def _known(target: Column, predicted: Column) -> tuple[Float[np.ndarray, "known"], Float[np.ndarray, "known"]]:
    """Both as float64 where the target is known; nothing, if a prediction there is not finite."""
    rows = ~np.isnan(target)
    known, guess = target[rows].astype(np.float64), predicted[rows].astype(np.float64)
    return (known, guess) if np.isfinite(guess).all() else (known[:0], guess[:0])
