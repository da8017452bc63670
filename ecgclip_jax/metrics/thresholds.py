"""A threshold chosen on validation, stored with the model, and what it does on other records.

A record is called positive if its score is at least the threshold. What it does are ratios of four sums (true and false
positives, positives, negatives), so its bootstrap draws are those of the sums (`resampling.bootstrap_sums`).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Rule = Literal["sensitivity", "specificity", "youden", "f1"]
_SLACK: Final = 1e-9


def fit_threshold(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    rule: Rule,
    target: float = 0.9,
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """The threshold that a rule picks on validation records: one of their scores, NaN if there is nothing to pick on.

    Args:
        positive: labels.
        score: of any scale.
        rule: `sensitivity`: the highest threshold whose sensitivity is at least `target`; `specificity`: the lowest
            whose specificity is at least `target` (infinite if only calling nothing positive reaches it); `youden`:
            largest sensitivity + specificity - 1; `f1`: largest F1. Of equally good ones the highest.
        target: of the first two rules.
        weight: sampling weights; default: all alike.
    """
    if positive.all() or not positive.any() or not np.isfinite(score).all():
        return float("nan")
    weight = np.ones(len(score)) if weight is None else weight.astype(np.float64)
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # a threshold cannot part equal scores
    tp = np.cumsum(weight[order] * positive[order])[last]
    fp = np.cumsum(weight[order] * ~positive[order])[last]
    candidates, sensitivity, specificity = ordered[last], tp / tp[-1], 1 - fp / fp[-1]
    if rule == "sensitivity":
        return float(candidates[np.argmax(sensitivity >= target - _SLACK)])
    if rule == "specificity":
        good = np.flatnonzero(specificity >= target - _SLACK)
        return float(candidates[good[-1]]) if len(good) else float("inf")
    merit = {"youden": sensitivity + specificity, "f1": 2 * tp / (tp + fp + tp[-1])}
    return float(candidates[np.argmax(merit[rule])])


class AtThreshold(NamedTuple):
    """What a stored threshold does; one value per draw; NaN where a denominator is 0."""

    sensitivity: Float[np.ndarray, "draws"]
    specificity: Float[np.ndarray, "draws"]
    ppv: Float[np.ndarray, "draws"]
    """Positive predictive value; with sampling weights that of the source population."""
    alerts_per_1000: Float[np.ndarray, "draws"]
    """ECGs called positive, per 1,000 ECGs."""


def threshold_sums(
    positive: Bool[np.ndarray, "records"],
    score: Float[np.ndarray, "records"],
    threshold: float,
    *,
    known: Bool[np.ndarray, "records"] | None = None,
    weight: Float[np.ndarray, "records"] | None = None,
) -> Float[np.ndarray, "4 records"]:
    """What each record adds to true positives, false positives, positives and negatives."""
    counts = np.ones(len(score)) if weight is None else weight.astype(np.float64)
    if known is not None:
        counts = np.where(known, counts, 0.0)
    called = score >= threshold
    sums: np.ndarray = counts * np.stack([called & positive, called & ~positive, positive, ~positive])
    return sums


def at_threshold(sums: Float[np.ndarray, "4 draws"]) -> AtThreshold:
    """Sensitivity, specificity, PPV and alerts from sums over records of `threshold_sums`, one column per draw."""
    tp, fp, positives, negatives = sums
    return AtThreshold(
        _ratio(tp, positives),
        _ratio(negatives - fp, negatives),
        _ratio(tp, tp + fp),
        1000 * _ratio(tp + fp, positives + negatives),
    )


def _ratio(part: Float[np.ndarray, "draws"], whole: Float[np.ndarray, "draws"]) -> Float[np.ndarray, "draws"]:
    share = np.full(len(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
