"""Are predicted probabilities true? Brier score, expected calibration error, calibration slope and intercept.

Slope and intercept (Cox; Van Calster et al., BMC Med 2019;17:230): regress the label on the logit of the prediction.
The slope's target is 1 (below: predictions too extreme). The intercept, with the slope held at 1, has the target 0
(below: risks predicted too high). `fit_temperature` and `fit_recalibration` are for validation records and are stored.

All figures take sampling weights. Brier and calibration error are functions of sums over records, so their bootstrap
draws are those of the sums (`resampling.bootstrap_sums`); a draw of slope and intercept takes one Newton step from the
fit on all records, which needs sums only and differs from a new fit in second order.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

MAX_NEWTON_STEPS: Final = 60
_CONVERGED: Final = 1e-9


class Recalibration(NamedTuple):
    """Probability = expit(intercept + slope x logit); NaN where there is no finite optimum."""

    intercept: float
    slope: float

    def apply(self, logit: Float[np.ndarray, "*records"]) -> Float[np.ndarray, "*records"]:
        """Recalibrated logits."""
        return self.intercept + self.slope * logit


def brier_terms(
    probability: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> Float[np.ndarray, "2 records"]:
    """Weighted squared errors and weights: the Brier score is the first's sum over the second's."""
    counts = _weights(weight, len(positive))
    return np.stack([counts * (probability - positive) ** 2, counts])


def brier(
    probability: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Mean squared error of the predicted probability."""
    errors, counts = brier_terms(probability, positive, weight).sum(axis=1)
    return float(errors / counts)


def equal_mass_edges(probability: Float[np.ndarray, "records"], bins: int = 10) -> Float[np.ndarray, "edges"]:
    """Inner edges of bins with equally many records (fewer bins where predictions are tied).

    With equal widths instead (`np.linspace(0, 1, bins + 1)[1:-1]`) nearly all predictions of a rare label share a bin.
    """
    edges: np.ndarray = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    return edges


def bin_terms(
    probability: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    edges: Float[np.ndarray, "edges"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> Float[np.ndarray, "terms records"]:
    """What each record adds to its bin: predicted, observed and weight, `3 x bins` rows (bins within each of three)."""
    counts = _weights(weight, len(positive))
    member = np.searchsorted(edges, probability, side="right") == np.arange(len(edges) + 1)[:, None]
    return np.concatenate([member * (counts * term) for term in (probability, positive, np.ones(len(positive)))])


def calibration_error(sums: Float[np.ndarray, "terms draws"]) -> Float[np.ndarray, "draws"]:
    """Expected calibration error per draw from sums of `bin_terms`: mean |observed - predicted|."""
    predicted, observed, counts = np.split(sums, 3)
    error: np.ndarray = np.abs(predicted - observed).sum(axis=0) / counts.sum(axis=0)
    return error


def expected_calibration_error(
    probability: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    edges: Float[np.ndarray, "edges"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Expected calibration error over the bins between `edges`; a prediction on an edge belongs to the upper bin."""
    return float(calibration_error(bin_terms(probability, positive, edges, weight).sum(axis=1, keepdims=True))[0])


def fit_recalibration(
    logit: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> Recalibration:
    """Logistic regression of the label on the logit; its `slope` is the calibration slope.

    NaN where the optimum is not finite: one class only, logits all equal, or classes that a threshold separates.
    """
    centre, spread = float(np.mean(logit)), float(np.std(logit))
    design = np.stack([np.ones(len(logit)), (logit - centre) / spread if spread > 0 else np.zeros(len(logit))])
    constant, slope = _newton(design, np.zeros(len(logit)), positive, _weights(weight, len(positive)))
    return Recalibration(float(constant - slope * centre / spread), float(slope / spread)) if spread > 0 else _NO_FIT


_NO_FIT: Final = Recalibration(float("nan"), float("nan"))


def calibration_intercept(
    logit: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """Calibration in the large: the intercept of the label's logistic regression with the logit's slope held at 1."""
    return float(_newton(np.ones((1, len(logit))), logit, positive, _weights(weight, len(positive)))[0])


def fit_temperature(
    logits: Float[np.ndarray, "records labels"],
    positive: Bool[np.ndarray, "records labels"],
    known: Bool[np.ndarray, "records labels"],
    weight: Float[np.ndarray, "records"] | None = None,
) -> float:
    """The temperature whose logits / temperature have the lowest log loss over all known labels (Guo et al., 2017).

    One number for all labels: it changes no ranking. NaN if no positive temperature has an optimum.
    """
    rows = np.broadcast_to(_weights(weight, len(logits))[:, None], logits.shape)[known]
    inverse = _newton(logits[known][None], np.zeros(int(known.sum())), positive[known], rows)[0]
    return float(1 / inverse) if inverse > 0 else float("nan")


def newton_terms(
    logit: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    fit: Recalibration,
    intercept: float,
    weight: Float[np.ndarray, "records"] | None = None,
) -> Float[np.ndarray, "7 records"]:
    """Gradient and curvature of each record at the two fits on all of them, for `newton_draws`.

    Rows: gradient (intercept, slope) and curvature (intercept, mixed, slope) of the recalibration; gradient and
    curvature of the intercept alone.
    """
    counts, probability = _weights(weight, len(positive)), expit(fit.apply(logit))
    error, curvature = counts * (probability - positive), counts * probability * (1 - probability)
    alone = expit(logit + intercept)
    return np.stack(
        [
            error,
            error * logit,
            curvature,
            curvature * logit,
            curvature * logit**2,
            counts * (alone - positive),
            counts * alone * (1 - alone),
        ]
    )


def newton_draws(
    slope: float, intercept: float, sums: Float[np.ndarray, "7 draws"]
) -> tuple[Float[np.ndarray, "draws"], Float[np.ndarray, "draws"]]:
    """Calibration slope and intercept under draws: one Newton step from the fits on all records."""
    g0, g1, h00, h01, h11, gradient, curvature = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = slope - (h00 * g1 - h01 * g0) / (h00 * h11 - h01**2)
        intercepts = intercept - gradient / curvature
    return slopes, intercepts


def _weights(weight: Float[np.ndarray, "records"] | None, n: int) -> Float[np.ndarray, "records"]:
    return np.ones(n) if weight is None else weight.astype(np.float64)


def _newton(
    design: Float[np.ndarray, "terms records"],
    offset: Float[np.ndarray, "records"],
    positive: Bool[np.ndarray, "records"],
    weight: Float[np.ndarray, "records"],
) -> Float[np.ndarray, "terms"]:
    """Unpenalised logistic regression by Newton steps, halved while the loss rises; NaN without a finite optimum."""
    theta = np.zeros(len(design))
    nothing = np.full(len(design), np.nan)

    def loss(at: Float[np.ndarray, "terms"]) -> float:
        logit = at @ design + offset
        return float(weight @ (np.logaddexp(0.0, logit) - positive * logit))

    if not np.isfinite(offset).all():  # logits over a temperature that validation could not define
        return nothing
    value = loss(theta)
    for _ in range(MAX_NEWTON_STEPS):
        probability = expit(theta @ design + offset)
        gradient = design @ (weight * (probability - positive))
        curvature = (design * (weight * probability * (1 - probability))) @ design.T
        if not np.isfinite(curvature).all() or not np.linalg.cond(curvature) < 1e12:
            return nothing
        step = np.linalg.solve(curvature, gradient)
        after = loss(theta - step)
        while after > value * (1 + 1e-12) and np.abs(step).max() > _CONVERGED:
            step = step / 2
            after = loss(theta - step)
        theta, value = theta - step, after
        if np.abs(step).max() <= _CONVERGED * (1 + np.abs(theta).max()):
            return theta
    return nothing
