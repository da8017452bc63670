"""Cox regression on frozen features: who has the event earlier, from follow-up that is partly censored.

Features are standardised and turned to their principal axes, as for the other probes, and penalised by ridge. The
strength is chosen on validation by its partial likelihood (not by the C-index, which few events leave to chance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ecgclip_jax.evaluation.protocols.cox_likelihood import FollowUp, log_likelihood, maximise
from ecgclip_jax.evaluation.protocols.logistic import Rotation, fit_rotation
from ecgclip_jax.spec.errors import UserError

PENALTIES = (1e4, 1e3, 1e2, 1e1, 1.0)
"""-ℓ(β) + penalty/2 · |β|², ℓ a sum over events; our choice. From the strongest on, each starts from the one before."""


class TimeToEventError(UserError):
    """Follow-up from which no order of events can be learned or chosen."""


@dataclass(frozen=True)
class SurvivalData:
    """Features and follow-up of one split; `time` is of the event or, where there was none, of the end of follow-up."""

    features: Float[np.ndarray, "records width"]
    time: Float[np.ndarray, "records"]
    event: Bool[np.ndarray, "records"]

    @property
    def usable(self) -> SurvivalData:
        """The records whose follow-up is known and does not end before it begins."""
        known = np.isfinite(self.time) & (self.time >= 0)
        return SurvivalData(self.features[known], self.time[known], self.event[known])


@dataclass(frozen=True)
class CoxModel:
    """Fitted log relative hazards."""

    rotation: Rotation
    weight: Float[np.ndarray, "axes"]
    penalty: float
    validation_loss: dict[float, float]
    """Negative partial log-likelihood per validation event, for every penalty."""

    def risk(self, features: Float[np.ndarray, "records width"]) -> Float[np.ndarray, "records"]:
        """Log relative hazard: higher where the event is expected earlier (`metrics.survival` takes it as it is)."""
        risk: np.ndarray = self.rotation.apply(features).astype(np.float64) @ self.weight
        return risk


def fit_cox(train: SurvivalData, validation: SurvivalData, penalties: tuple[float, ...] = PENALTIES) -> CoxModel:
    """Fit every penalty on `train`, choose on `validation`; records of unknown follow-up are left out.

    Raises:
        TimeToEventError: no event in training or in validation.
    """
    train, validation = train.usable, validation.usable
    for name, split in (("training", train), ("validation", validation)):
        if not split.event.any():
            raise TimeToEventError(
                f"time to event: expected events in {name}, found none among {len(split.time)} records with known "
                "follow-up; give more records, or another end point"
            )
    rotation = fit_rotation(train.features)
    features, seen = (rotation.apply(s.features).astype(np.float64) for s in (train, validation))
    follow_up, held = (FollowUp.of(s.time, s.event) for s in (train, validation))
    weight = np.zeros(features.shape[1])
    weights: dict[float, np.ndarray] = {}
    losses: dict[float, float] = {}
    for penalty in sorted(penalties, reverse=True):
        weight = weights[penalty] = maximise(features, follow_up, penalty, weight)
        losses[penalty] = -log_likelihood(held, seen @ weight) / int(validation.event.sum())
    best = min(losses, key=lambda penalty: losses[penalty])
    return CoxModel(rotation, weights[best], best, losses)
