"""AUROC and average precision, exact with ties, for one score or for thousands of weightings of it at once.

The scores are sorted once. A weighting (a bootstrap draw: how often each patient was drawn) then costs one pass over
the sorted rows, and many weightings run side by side as lanes of that pass. Counts are integers, so AUROC is exact up
to its one division; nothing is approximated by bins or by breaking ties.

Definitions, with P and N the total weight of positives and negatives:

- AUROC = P(score of a positive > score of a negative) + ½ P(equal), the Mann-Whitney statistic.
- Average precision = Σ over distinct scores of (recall gained) x (precision there), scikit-learn's definition; it is
  not the trapezoid under the precision-recall curve.

Both are NaN where they are undefined: only one class has weight, or a score is not finite. Never 0, never 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

POSITIVE, LAST_POSITIVE, LAST_OF_GROUP, LONE_POSITIVE = 1, 2, 4, 8


@dataclass(frozen=True)
class SortedColumn:
    """One label under one score, sorted by falling score and ready to be weighted.

    `unit` is the row of the weight matrix each record takes (its patient); `kind` are bit flags: a positive, the last
    positive of its tie group, the last row of a tie group that has a positive. A positive tied with nothing, the common
    case, has only the flag that says so. Within a tie group positives come first.
    """

    unit: Int[np.ndarray, "known"]
    kind: UInt8[np.ndarray, "known"]
    finite: bool


def sort_column(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    *,
    unit: Int[np.ndarray, "records"] | None = None,
    known: Bool[np.ndarray, "records"] | None = None,
) -> SortedColumn:
    """Sort one label's records by falling score; records whose label is not `known` are left out.

    `unit` says which row of the weight matrix weighs each record (default: each record its own).
    """
    unit = np.arange(len(score)) if unit is None else unit
    if known is not None and not known.all():
        positive, score, unit = positive[known], score[known], unit[known]
    finite = bool(np.isfinite(score).all())
    if not finite or not len(score):
        return SortedColumn(np.empty(0, np.int32), np.empty(0, np.uint8), finite)
    order = np.argsort(-score)
    ordered = score[order]
    group = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
    if group[-1] + 1 < len(group):
        order = order[np.argsort(2 * group + ~positive[order], kind="stable")]
    return SortedColumn(unit[order].astype(np.int32), _flags(positive[order], group), True)


def _flags(positive: Bool[np.ndarray, "known"], group: Int[np.ndarray, "known"]) -> UInt8[np.ndarray, "known"]:
    group_ends = np.append(group[1:] != group[:-1], True)
    positive_ends = positive & (group_ends | ~np.append(positive[1:], False))
    has_positive = np.bincount(group, weights=positive)[group] > 0
    flags = POSITIVE * positive + LAST_POSITIVE * positive_ends + LAST_OF_GROUP * (group_ends & has_positive)
    alone = positive & (np.bincount(group)[group] == 1)
    return np.where(alone, LONE_POSITIVE, flags).astype(np.uint8)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _stream(unit, kind, weights, floor, tp, fp, group_tp, lost, precision):
    """One pass over the sorted rows; every array after `floor` has one lane per weighting and is added to.

    `lost` counts, twice, the (positive, negative) pairs ranked the wrong way round, a tie as half a pair. A negative
    row costs one integer addition per lane; the arithmetic happens at positives, which are few.
    """
    lanes = weights.shape[1]
    for row in range(unit.shape[0]):
        weight = weights[unit[row]]
        flags = kind[row]
        if flags == LONE_POSITIVE:
            for r in range(lanes):
                tp[r] += weight[r]
                lost[r] += 2.0 * weight[r] * fp[r]
                precision[r] += weight[r] * (np.float64(tp[r]) / max(tp[r] + fp[r], floor))
            continue
        if flags & POSITIVE:
            for r in range(lanes):
                group_tp[r] += weight[r]
        else:
            for r in range(lanes):
                fp[r] += weight[r]
        if flags & LAST_POSITIVE:
            for r in range(lanes):
                lost[r] += np.float64(group_tp[r]) * fp[r]
                tp[r] += group_tp[r]
        if flags & LAST_OF_GROUP:
            for r in range(lanes):
                lost[r] += np.float64(group_tp[r]) * fp[r]
                precision[r] += group_tp[r] * (np.float64(tp[r]) / max(tp[r] + fp[r], floor))
                group_tp[r] = 0


def weighted_metrics(
    column: SortedColumn, weights: Shaped[np.ndarray, "units lanes"]
) -> tuple[Float[np.ndarray, "lanes"], Float[np.ndarray, "lanes"]]:
    """AUROC and average precision of one column under each weighting.

    Args:
        column: a sorted column; `column.unit` indexes the rows of `weights`.
        weights: C-contiguous, one weighting per lane: uint8 counts (exact integer arithmetic while a draw's total stays
            below 2^31) or float64 weights >= 0.

    Returns:
        AUROC and average precision, float64, NaN where undefined.
    """
    lanes = weights.shape[1]
    undefined = np.full(lanes, np.nan)
    if not column.finite:
        return undefined, undefined
    exact = weights.dtype == np.uint8
    if not exact and weights.dtype != np.float64:
        raise TypeError(f"weights are uint8 counts or float64, found {weights.dtype}")
    counter = np.int32 if exact else np.float64
    tp, fp, group_tp = (np.zeros(lanes, counter) for _ in range(3))
    lost, precision = np.zeros(lanes), np.zeros(lanes)
    floor = counter(1) if exact else counter(np.finfo(np.float64).tiny)
    _stream(column.unit, column.kind, weights, floor, tp, fp, group_tp, lost, precision)
    positives, negatives = tp.astype(np.float64), fp.astype(np.float64)
    defined = (positives > 0) & (negatives > 0)
    auroc = np.divide(2 * positives * negatives - lost, 2 * positives * negatives, out=undefined.copy(), where=defined)
    average = np.divide(precision, positives, out=undefined.copy(), where=defined)
    return auroc, average


def _single(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None,
) -> tuple[float, float]:
    column = sort_column(positive, score)
    lane = np.ones((len(score), 1)) if weight is None else np.ascontiguousarray(weight[:, None], np.float64)
    auroc_lane, average_lane = weighted_metrics(column, lane)
    return float(auroc_lane[0]), float(average_lane[0])


def auroc(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Area under the ROC curve, ties counted half; NaN if one class is absent or a score is not finite."""
    return _single(positive, score, weight)[0]


def average_precision(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Average precision (scikit-learn's definition); NaN if one class is absent or a score is not finite."""
    return _single(positive, score, weight)[1]
