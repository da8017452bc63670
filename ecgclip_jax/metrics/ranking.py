"""AUROC and average precision, exact with ties, for one score or for thousands of weightings of it at once.

The scores are sorted once. A weighting (a bootstrap draw: how often each patient was drawn) then costs one pass over
the sorted rows, and many weightings run side by side as lanes of that pass. Counts are integers, so AUROC is exact up
to its one division; nothing is approximated by bins or by breaking ties.

Definitions, with P and N the total weight of positives and negatives:

- AUROC = P(score of a positive > score of a negative) + ½ P(equal), the Mann-Whitney statistic.
- Average precision = Σ over distinct scores of (recall gained) x (precision there), scikit-learn's definition; it is
  not the trapezoid under the precision-recall curve.
- Lift = average precision / prevalence: how many times better than guessing.
- Average precision at a reference prevalence: the same with all negatives re-weighted by one factor so that positives
  are that share of the weight. It compares hospitals whose prevalences differ, where raw average precision does not.

A record may carry a sampling weight (how many records of the source it stands for), so that a case-enriched sample is
weighted back to the source's prevalence. All are NaN where they are undefined: only one class has weight, or a score is
not finite. Never 0, never 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

POSITIVE, LAST_POSITIVE, LAST_OF_GROUP, LONE_POSITIVE = 1, 2, 4, 8
TINY: Final = float(np.finfo(np.float64).tiny)
RANKING_METRICS: Final = ("auroc", "average_precision", "lift")
"""What `weighted_metrics` returns first; average precisions at reference prevalences follow."""


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
    sampling: Float[np.ndarray, "known"] | None = None
    """Sampling weight of each record; None: all count alike, in integers."""


def sort_column(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    *,
    unit: Int[np.ndarray, "records"] | None = None,
    known: Bool[np.ndarray, "records"] | None = None,
    sampling: Float[np.ndarray, "records"] | None = None,
) -> SortedColumn:
    """Sort one label's records by falling score; records whose label is not `known` are left out.

    `unit` says which row of the weight matrix weighs each record (default: each record its own); `sampling` are the
    records' sampling weights, >= 0.
    """
    unit = np.arange(len(score)) if unit is None else unit
    if known is not None and not known.all():
        positive, score, unit = positive[known], score[known], unit[known]
        sampling = None if sampling is None else sampling[known]
    finite = bool(np.isfinite(score).all())
    if not finite or not len(score):
        return SortedColumn(np.empty(0, np.int32), np.empty(0, np.uint8), finite)
    order = np.argsort(-score)
    ordered = score[order]
    group = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
    if group[-1] + 1 < len(group):
        order = order[np.argsort(2 * group + ~positive[order], kind="stable")]
    ordered_sampling = None if sampling is None else sampling[order].astype(np.float64)
    return SortedColumn(unit[order].astype(np.int32), _flags(positive[order], group), True, ordered_sampling)


def _flags(positive: Bool[np.ndarray, "known"], group: Int[np.ndarray, "known"]) -> UInt8[np.ndarray, "known"]:
    group_ends = np.append(group[1:] != group[:-1], True)
    positive_ends = positive & (group_ends | ~np.append(positive[1:], False))
    has_positive = np.bincount(group, weights=positive)[group] > 0
    flags = POSITIVE * positive + LAST_POSITIVE * positive_ends + LAST_OF_GROUP * (group_ends & has_positive)
    alone = positive & (np.bincount(group)[group] == 1)
    return np.where(alone, LONE_POSITIVE, flags).astype(np.uint8)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _count(flags, weight, balance, tp, fp, group_tp, lost, precision):
    """One sorted row; every array has one lane per weighting, those from `tp` on are added to.

    `lost` counts, twice, the (positive, negative) pairs ranked the wrong way round, a tie as half a pair. A negative
    row costs one addition per lane; the arithmetic happens at positives, which are few. `balance` multiplies the weight
    of all negatives in the precision.
    """
    lanes = weight.shape[0]
    if flags == LONE_POSITIVE:
        for r in range(lanes):
            tp[r] += weight[r]
            lost[r] += 2.0 * weight[r] * fp[r]
            precision[r] += weight[r] * (tp[r] / max(tp[r] + balance[r] * fp[r], TINY))
        return
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
            precision[r] += group_tp[r] * (tp[r] / max(tp[r] + balance[r] * fp[r], TINY))
            group_tp[r] = 0


@numba.njit(nogil=True, cache=True)
@no_type_check
def _stream(unit, kind, weights, balance, tp, fp, group_tp, lost, precision):
    """One pass over the sorted rows."""
    for row in range(unit.shape[0]):
        _count(kind[row], weights[unit[row]], balance, tp, fp, group_tp, lost, precision)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _stream_sampled(unit, kind, weights, sampling, balance, tp, fp, group_tp, lost, precision):
    """The same where records have sampling weights."""
    weight = np.empty(weights.shape[1])
    for row in range(unit.shape[0]):
        scale_row(weights[unit[row]], sampling[row], weight)
        _count(kind[row], weight, balance, tp, fp, group_tp, lost, precision)


@numba.njit(nogil=True, cache=True)
@no_type_check
def scale_row(weights, sampling, scaled):
    """What a record of some sampling weight counts under each weighting of its unit, written to `scaled`."""
    for r in range(weights.shape[0]):
        scaled[r] = weights[r] * sampling


def weighted_metrics(
    column: SortedColumn, weights: Shaped[np.ndarray, "units lanes"], prevalences: Sequence[float] = ()
) -> Float[np.ndarray, "metrics lanes"]:
    """AUROC, average precision, lift and average precision at each of `prevalences`, of one column per weighting.

    Args:
        column: a sorted column; `column.unit` indexes the rows of `weights`.
        weights: C-contiguous, one weighting per lane: uint8 counts (exact integer arithmetic while a draw's total stays
            below 2^31, unless the column has sampling weights) or float64 weights >= 0.
        prevalences: reference prevalences, each between 0 and 1; each costs one more pass.

    Returns:
        A row per metric, in the order of `RANKING_METRICS` and then of `prevalences`; NaN where undefined.
    """
    if weights.dtype not in (np.uint8, np.float64):
        raise TypeError(f"weights are uint8 counts or float64, found {weights.dtype}")
    if not column.finite:
        return np.full((len(RANKING_METRICS) + len(prevalences), weights.shape[1]), np.nan)
    lanes = weights.shape[1]
    result = np.full((len(RANKING_METRICS) + len(prevalences), lanes), np.nan)
    positives, negatives, lost, precision = _passed(column, weights, np.ones(lanes))
    defined = (positives > 0) & (negatives > 0)
    pairs, prevalence = 2 * positives * negatives, positives / np.maximum(positives + negatives, TINY)
    np.divide(pairs - lost, pairs, out=result[0], where=defined)
    np.divide(precision, positives, out=result[1], where=defined)
    np.divide(result[1], prevalence, out=result[2], where=defined)
    for row, reference in enumerate(prevalences, start=len(RANKING_METRICS)):
        odds = np.ones(lanes)
        np.divide(positives * (1 - reference), negatives * reference, out=odds, where=defined)
        rebalanced = _passed(column, weights, odds)[-1]
        np.divide(rebalanced, positives, out=result[row], where=defined)
    return result


def _passed(
    column: SortedColumn, weights: Shaped[np.ndarray, "units lanes"], balance: Float[np.ndarray, "lanes"]
) -> tuple[Float[np.ndarray, "lanes"], ...]:
    """Weight of positives and of negatives, twice the lost pairs, and the sum of precisions, per lane."""
    lanes = weights.shape[1]
    counter = np.int32 if weights.dtype == np.uint8 and column.sampling is None else np.float64
    tp, fp, group_tp = (np.zeros(lanes, counter) for _ in range(3))
    lost, precision = np.zeros(lanes), np.zeros(lanes)
    counted = (balance, tp, fp, group_tp, lost, precision)
    if column.sampling is None:
        _stream(column.unit, column.kind, weights, *counted)
    else:
        _stream_sampled(column.unit, column.kind, weights, column.sampling, *counted)
    return tp.astype(np.float64), fp.astype(np.float64), lost, precision


def _single(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None,
    prevalences: Sequence[float] = (),
) -> Float[np.ndarray, "metrics"]:
    column = sort_column(positive, score)
    lane = np.ones((len(score), 1)) if weight is None else np.ascontiguousarray(weight[:, None], np.float64)
    single: np.ndarray = weighted_metrics(column, lane, prevalences)[:, 0]
    return single


def auroc(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Area under the ROC curve, ties counted half; NaN if one class is absent or a score is not finite."""
    return float(_single(positive, score, weight)[0])


def average_precision(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
    *,
    prevalence: float | None = None,
) -> float:
    """Average precision (scikit-learn's definition); NaN if one class is absent or a score is not finite.

    With `prevalence` negatives are re-weighted so that positives are that share of the weight.
    """
    if prevalence is None:
        return float(_single(positive, score, weight)[1])
    if not 0 < prevalence < 1:
        raise ValueError(f"a reference prevalence lies between 0 and 1, found {prevalence:g}")
    return float(_single(positive, score, weight, (prevalence,))[-1])
