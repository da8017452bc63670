"""Sensitivity where specificity, or the number of alerts, is fixed in advance: exact with ties, for many weightings.

Both walk once down the sorted rows of `ranking.sort_column`, as average precision does. The threshold is chosen on the
records that are scored; what a threshold stored from validation does is `metrics.thresholds`.
"""

from __future__ import annotations

from typing import Final, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Shaped

from ecgclip_jax.metrics.ranking import (
    LAST_OF_GROUP,
    LAST_POSITIVE,
    LONE_POSITIVE,
    POSITIVE,
    TINY,
    SortedColumn,
    scale_row,
    sort_column,
)

SLACK: Final = 1e-9
"""Relative: (1 - 0.9) x 10 must allow one false positive although it is a little less than 1."""


@numba.njit(nogil=True, cache=True)
@no_type_check
def _walk(unit, kind, weights, sampling, allowed_fp, capacity, at_specificity, at_top):
    """Weight of the positives found with at most `allowed_fp`, and among the first `capacity`, per lane.

    Only groups of equal scores that have a positive can raise either; of a group that exceeds the capacity the share
    that fits is taken, the mean over all orders of the tied.
    """
    lanes = weights.shape[1]
    tp, fp, fp_before, group_tp = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    weight = np.empty(lanes)
    for row in range(unit.shape[0]):
        flags = kind[row]
        scale_row(weights[unit[row]], sampling[row], weight)
        if flags & (POSITIVE | LONE_POSITIVE):
            for r in range(lanes):
                group_tp[r] += weight[r]
        else:
            for r in range(lanes):
                fp[r] += weight[r]
        if flags & (LAST_POSITIVE | LONE_POSITIVE):  # within a group positives come first
            for r in range(lanes):
                fp_before[r] = fp[r]
        if flags & (LAST_OF_GROUP | LONE_POSITIVE):
            for r in range(lanes):
                before = tp[r] + fp_before[r]
                size = group_tp[r] + fp[r] - fp_before[r]
                at_top[r] += group_tp[r] * min(max((capacity[r] - before) / max(size, TINY), 0.0), 1.0)
                tp[r] += group_tp[r]
                group_tp[r] = 0.0
                if fp[r] <= allowed_fp[r]:
                    at_specificity[r] = tp[r]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _totals(unit, kind, weights, sampling, positives, negatives):
    """Weight of all positives and of all negatives, per lane."""
    weight = np.empty(weights.shape[1])
    for row in range(unit.shape[0]):
        scale_row(weights[unit[row]], sampling[row], weight)
        of_class = positives if kind[row] & (POSITIVE | LONE_POSITIVE) else negatives
        for r in range(weight.shape[0]):
            of_class[r] += weight[r]


def sensitivity_at(
    column: SortedColumn, weights: Shaped[np.ndarray, "units lanes"], *, specificity: float, top: float
) -> Float[np.ndarray, "2 lanes"]:
    """Sensitivity at a specificity (index 0) and among the share `top` of highest scores (1), per weighting.

    At a specificity: the highest sensitivity of any threshold whose specificity is at least that; nothing is
    interpolated. At the top: true positive rate if the first `top` x records are called positive, that number rounded
    down (with sampling weights: `top` x their sum), ties by their mean over all orders. With `top` = 0.05 it is the
    score of the George B. Moody PhysioNet Challenge 2025, whose code draws 10,000 orders where this is exact.
    NaN where a class is absent or a score is not finite.
    """
    if not column.finite:
        return np.full((2, weights.shape[1]), np.nan)
    lanes = weights.shape[1]
    result = np.full((2, lanes), np.nan)
    sampling = np.ones(len(column.unit)) if column.sampling is None else column.sampling
    positives, negatives = np.zeros(lanes), np.zeros(lanes)
    _totals(column.unit, column.kind, weights, sampling, positives, negatives)
    allowed = (1 - specificity) * negatives * (1 + SLACK)
    capacity = top * (positives + negatives) * (1 + SLACK)
    if column.sampling is None and weights.dtype == np.uint8:
        capacity = np.floor(capacity)
    at_specificity, at_top = np.zeros(lanes), np.zeros(lanes)
    _walk(column.unit, column.kind, weights, sampling, allowed, capacity, at_specificity, at_top)
    defined = (positives > 0) & (negatives > 0)
    for row, found in enumerate((at_specificity, at_top)):
        np.divide(found, positives, out=result[row], where=defined)
    return result


def sensitivity_at_specificity(
    positive: Bool[np.ndarray, "records"], score: Float[np.ndarray, "records"], specificity: float
) -> float:
    """Highest sensitivity of any threshold whose specificity is at least `specificity`; NaN if a class is absent."""
    lane = np.ones((len(score), 1), np.uint8)
    return float(sensitivity_at(sort_column(positive, score), lane, specificity=specificity, top=0.0)[0, 0])


def sensitivity_at_top(
    positive: Bool[np.ndarray, "records"], score: Float[np.ndarray, "records"], top: float = 0.05
) -> float:
    """Share of positives among the `top` share of highest scores, ties by their mean; NaN if a class is absent."""
    lane = np.ones((len(score), 1), np.uint8)
    return float(sensitivity_at(sort_column(positive, score), lane, specificity=1.0, top=top)[1, 0])
