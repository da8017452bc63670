"""How well a risk score orders the times of events that are partly censored: AUROC at a time, and Harrell's C.

Risk is any number that is higher where the event is expected earlier, such as one minus the survival curve.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

PAIRS_AT_A_TIME: Final = 512


def auroc_at(
    time: Float[np.ndarray, "records"],
    event: Bool[np.ndarray, "records"],
    risk: Float[np.ndarray, "records"],
    horizon: float,
    *,
    censoring_weights: bool = True,
) -> float:
    """Cumulative/dynamic AUROC: the chance that who has the event by `horizon` has a higher risk than who has none.

    `time` is of the event or of the end of follow-up, in the units of `horizon`. Cases have their event at or before
    the horizon, controls are followed beyond it; who is censored before is neither. With `censoring_weights` a case
    counts 1/G(time -), G the Kaplan-Meier curve of censoring, which makes up for the cases lost to it (Uno et al., JASA
    2007; scikit-survival's estimator takes G at the time itself, which differs only where an event and a censoring
    coincide). Without them it is the plain AUROC after the exclusion (what ECGCLIP's released code does, but for a
    record followed to the horizon exactly). NaN where there are no cases or no controls, or a risk is not finite.
    """
    case, control = event & (time <= horizon), time > horizon
    if not case.any() or not control.any() or not np.isfinite(risk).all():
        return float("nan")
    weight = 1 / _still_followed(time, event)[case] if censoring_weights else np.ones(int(case.sum()))
    controls = np.sort(risk[control])
    below = np.searchsorted(controls, risk[case], side="left")
    not_above = np.searchsorted(controls, risk[case], side="right")
    return float((weight * (below + not_above)).sum() / (2 * weight.sum() * len(controls)))


def _still_followed(
    time: Float[np.ndarray, "records"], event: Bool[np.ndarray, "records"]
) -> Float[np.ndarray, "records"]:
    """Kaplan-Meier estimate of not being censored before each record's own time.

    Where events and censorings coincide the events come first, as usual: who had the event was not at risk of being
    censored with the others.
    """
    moments, position = np.unique(time, return_inverse=True)
    censored = np.bincount(position, weights=~event, minlength=len(moments))
    events = np.bincount(position, weights=event, minlength=len(moments))
    at_risk = len(time) - np.concatenate([[0], np.cumsum(censored + events)[:-1]]) - events
    kept = 1 - np.divide(censored, at_risk, out=np.zeros(len(moments)), where=censored > 0)
    before = np.concatenate([[1.0], np.cumprod(kept)[:-1]])
    curve: Float[np.ndarray, "records"] = before[position]
    return curve


def concordance_index(
    time: Float[np.ndarray, "records"], event: Bool[np.ndarray, "records"], risk: Float[np.ndarray, "records"]
) -> float:
    """Harrell's C: among pairs whose order of events is known, the share in which the earlier one has the higher risk.

    A pair is known if the earlier time is an event's; at equal times, if one is an event and the other is censored.
    Equal risks count one half. NaN where no pair is known, or a risk is not finite. O(n log n).
    """
    if not np.isfinite(risk).all():
        return float("nan")
    levels, ranks = np.unique(risk, return_inverse=True)
    tree = np.zeros(len(levels) + 1, np.int64)
    concordant, tied, known, joined = 0, 0, 0, 0
    # From the latest time to the earliest, so that whoever is in the tree outlived the record at hand. At equal times
    # the censored join before the events ask, and the events join when all of them have asked.
    order = np.lexsort((event, -time))
    bounds = np.flatnonzero(np.diff(time[order])) + 1
    for same_time in np.split(order, bounds):
        for rank in ranks[same_time[~event[same_time]]].tolist():
            _join(tree, rank)
        joined += int((~event[same_time]).sum())
        waiting = ranks[same_time[event[same_time]]].tolist()
        for rank in waiting:
            lower = _count(tree, rank)
            concordant, tied, known = concordant + lower, tied + _count(tree, rank + 1) - lower, known + joined
        for rank in waiting:
            _join(tree, rank)
        joined += len(waiting)
    return (concordant + tied / 2) / known if known else float("nan")


def _join(tree: np.ndarray, rank: int) -> None:
    """One record more of this rank (a Fenwick tree of counts)."""
    at = rank + 1
    while at < len(tree):
        tree[at] += 1
        at += at & -at


def _count(tree: np.ndarray, rank: int) -> int:
    """Records of a lower rank."""
    total = 0
    while rank > 0:
        total += int(tree[rank])
        rank -= rank & -rank
    return total


def concordance_draws(
    time: Float[np.ndarray, "records"],
    event: Bool[np.ndarray, "records"],
    risk: Float[np.ndarray, "records"],
    patient: Int[np.ndarray, "records"],
    draws: Iterable[UInt8[np.ndarray, "patients _"]],
    weight: Float[np.ndarray, "records"] | None = None,
) -> Float[np.ndarray, "draws"]:
    """Harrell's C of all records first, then under every draw of patients (`metrics.resampling.patient_draws`).

    A pair counts as often as both its records were drawn, times their sampling weights; records of one patient are
    never a pair. Pairs are looked at `PAIRS_AT_A_TIME` rows at a time: time grows with the square of the records,
    memory does not.
    """
    own = np.ones(len(time)) if weight is None else weight
    lanes = [own[:, None], *(own[:, None] * block[patient] for block in draws)]
    columns = np.concatenate(lanes, axis=1)
    concordant, known = np.zeros((2, columns.shape[1]))
    for start in range(0, len(time), PAIRS_AT_A_TIME):
        rows = slice(start, start + PAIRS_AT_A_TIME)
        mine, others = (time[rows, None], event[rows, None]), (time[None], event[None])
        first = mine[1] & ((mine[0] < others[0]) | ((mine[0] == others[0]) & ~others[1]))
        first &= patient[rows, None] != patient[None]
        higher = (risk[rows, None] > risk[None]) + 0.5 * (risk[rows, None] == risk[None])
        for pairs, total in ((first * higher, concordant), (first.astype(np.float64), known)):
            total += (columns[rows] * (pairs @ columns)).sum(axis=0)
    shares: np.ndarray = np.divide(concordant, known, out=np.full(len(known), np.nan), where=known > 0)
    return shares
