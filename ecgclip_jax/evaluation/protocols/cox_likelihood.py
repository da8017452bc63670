"""Cox's partial likelihood with Efron's ties, and its maximum under a ridge penalty, by Newton's method in float64.

With weights w_i = exp(x_i·β), a moment t at which m records have their event, R the sum of w over all who are still
followed (time >= t) and D the sum over those m: ℓ(β) = Σ x_i·β over events - Σ over moments and l = 0 … m-1 of
log(R - l/m · D) (Efron, JASA 1977). Sums over who is followed are cumulative sums from the latest time on, so value and
gradient cost O(n), and the Hessian two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_ITERATIONS = 100
TOLERANCE = 1e-12
"""Newton has converged when half the squared decrement is below this share of the objective."""


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Times and events in the order in which a partial likelihood reads them."""

    event: Bool[np.ndarray, "records"]
    moment: Int[np.ndarray, "records"]
    """Number of each record's time among the distinct times, rising."""
    order: Int[np.ndarray, "records"]
    """Records by time."""
    ending: Int[np.ndarray, "events"]
    """Records with an event, by time: what follows has an entry for each."""
    followed_from: Int[np.ndarray, "events"]
    """Where in `order` begin those who are still followed then."""
    first: Int[np.ndarray, "events"]
    """Where in `ending` begin those of the same moment."""
    share: Float[np.ndarray, "events"]
    """l/m: which share of those Efron has taken out."""

    @classmethod
    def of(cls, time: Float[np.ndarray, "records"], event: Bool[np.ndarray, "records"]) -> FollowUp:
        """Any unit of time; a record censored at the moment of an event is still followed then."""
        _, moment = np.unique(time, return_inverse=True)
        order = np.argsort(moment, kind="stable")
        ending = order[event[order]]
        at = moment[ending]
        first = np.searchsorted(at, at, side="left")
        tied = np.searchsorted(at, at, side="right") - first
        share = (np.arange(len(at)) - first) / np.maximum(tied, 1)
        return cls(event, moment, order, ending, np.searchsorted(moment[order], at), first, share)

    def at_risk(self, values: Float[np.ndarray, "records *rest"]) -> Float[np.ndarray, "events *rest"]:
        """Efron's sum of `values` at every event: over all who are followed, less a share of who have their event."""
        followed = np.cumsum(values[self.order][::-1], axis=0)[::-1][self.followed_from]
        starts, group = np.unique(self.first, return_inverse=True)
        together = np.add.reduceat(values[self.ending], starts, axis=0)[group]
        sums: np.ndarray = followed - self.share.reshape(-1, *(1 for _ in values.shape[1:])) * together
        return sums

    def exposure(self, total: Float[np.ndarray, "events"]) -> Float[np.ndarray, "records"]:
        """For every record the sum of 1 / `total` over the events that it was at risk of, in Efron's shares."""
        at, moments = self.moment[self.ending], int(self.moment.max()) + 1
        whole = np.cumsum(np.bincount(at, 1 / total, moments))
        taken_out = np.bincount(at, self.share / total, moments)
        exposed: np.ndarray = whole[self.moment] - self.event * taken_out[self.moment]
        return exposed


def log_likelihood(follow_up: FollowUp, risk: Float[np.ndarray, "records"]) -> float:
    """ℓ of log relative hazards; a constant added to all of them changes nothing.

    Infinite where all who are followed at some event have hazards of e^-745 of the largest, or below.
    """
    level = risk.max()
    total = follow_up.at_risk(np.exp(risk - level))
    with np.errstate(divide="ignore"):
        return float((risk[follow_up.event] - level).sum() - np.log(total).sum())


def maximise(
    features: Float[np.ndarray, "records axes"],
    follow_up: FollowUp,
    penalty: float,
    start: Float[np.ndarray, "axes"],
) -> Float[np.ndarray, "axes"]:
    """β that minimises -ℓ(β) + penalty/2 · |β|², by Newton steps that are halved until the objective falls."""

    def objective(weight: np.ndarray) -> float:
        return -log_likelihood(follow_up, features @ weight) + penalty / 2 * float(weight @ weight)

    weight, value = start, objective(start)
    for _ in range(MAX_ITERATIONS):
        gradient, hessian = _derivatives(features, follow_up, features @ weight)
        gradient = gradient + penalty * weight
        step = -np.linalg.solve(hessian + penalty * np.eye(len(weight)), gradient)
        promised = -0.5 * float(gradient @ step)
        if promised <= TOLERANCE * max(abs(value), 1.0):
            break
        length, new = 1.0, objective(weight + step)
        while not new <= value - 1e-4 * length * 2 * promised and length > 1e-6:
            length /= 2
            new = objective(weight + length * step)
        weight, value = weight + length * step, new
    return weight


def _derivatives(
    features: Float[np.ndarray, "records axes"], follow_up: FollowUp, risk: Float[np.ndarray, "records"]
) -> tuple[Float[np.ndarray, "axes"], Float[np.ndarray, "axes axes"]]:
    """Gradient and Hessian of -ℓ."""
    hazard = np.exp(risk - risk.max())
    total = follow_up.at_risk(hazard)
    expected = hazard * follow_up.exposure(total)
    mean = follow_up.at_risk(hazard[:, None] * features) / total[:, None]
    gradient = features.T @ (expected - follow_up.event)
    hessian = features.T @ (expected[:, None] * features) - mean.T @ mean
    return gradient, hessian
