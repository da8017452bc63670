"""ROC and precision-recall curves with bands over patient draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.metrics.resampling import patient_draws

GRID: Final = np.linspace(0, 1, 101)
"""1 - specificity of a ROC curve, recall of a precision-recall curve."""


class Band(NamedTuple):
    """A curve over `GRID` with the ends of its band."""

    value: Float[np.ndarray, "grid"]
    low: Float[np.ndarray, "grid"]
    high: Float[np.ndarray, "grid"]


@dataclass(frozen=True)
class CurveBands:
    """Of one score of one task: sensitivity over 1 - specificity, and precision over recall."""

    roc: Band
    precision: Band


def curve_bands(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    patient: Int[np.ndarray, "records"],
    n_patients: int,
    weight: Float[np.ndarray, "records"] | None = None,
    replicates: int = 200,
) -> CurveBands:
    """ROC and precision-recall curves with percentile bands over patient draws; ties move together.

    The ROC is linear between thresholds; precision is that of the first threshold that reaches a recall, as average
    precision has it.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    own = np.ones(len(score)) if weight is None else weight.astype(np.float64)
    draws = np.concatenate([np.ones((n_patients, 1)), *patient_draws(n_patients, replicates, 0)], axis=1)
    weights = (own[:, None] * draws[patient])[order]
    truth = positive[order, None]
    tp, fp = (np.cumsum(weights * member, axis=0)[last] for member in (truth, ~truth))
    roc, precision = np.full((2, draws.shape[1], len(GRID)), np.nan)
    for draw in range(draws.shape[1]):
        found, false = tp[:, draw], fp[:, draw]
        if found[-1] > 0 and false[-1] > 0:
            roc[draw] = np.interp(GRID, np.append(0, false / false[-1]), np.append(0, found / found[-1]))
            first = np.searchsorted(found / found[-1], GRID - 1e-12)
            precision[draw] = (found / np.maximum(found + false, 1e-300))[np.maximum(first, np.argmax(found > 0))]
    return CurveBands(*(_band(drawn_curves) for drawn_curves in (roc, precision)))


def _band(curves: Float[np.ndarray, "draws grid"]) -> Band:
    low, high = np.nanquantile(curves[1:], [0.025, 0.975], axis=0)
    return Band(curves[0], low, high)
