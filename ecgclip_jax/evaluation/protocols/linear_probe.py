"""Linear probe on frozen features: what a logistic regression can read from an encoder.

`fit_probe` takes training and validation arrays only; test arrays have no way in. One L2 strength serves all labels,
the one with the lowest mean validation log loss (the rule of the ecg-fix protocol, arXiv 2602.17531; released code),
because a label of few validation positives cannot choose its own. Features are standardised with training statistics
unless the settings ask for others as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from ecgclip_jax.evaluation.protocols.logistic import Rotation, fit_rotation, solve
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.evaluation import LogisticProbeSpec

DEFAULT = LogisticProbeSpec()


class ProbeError(UserError, ValueError):
    """Training or validation labels from which no probe can be had."""


@dataclass(frozen=True)
class ProbeData:
    """Features and labels of one split."""

    features: Float[np.ndarray, "records width"]
    positive: Bool[np.ndarray, "records labels"]
    known: Bool[np.ndarray, "records labels"]

    @property
    def both_classes(self) -> Bool[np.ndarray, "labels"]:
        """Labels with a known positive and a known negative."""
        both: np.ndarray = (self.positive & self.known).any(axis=0) & (~self.positive & self.known).any(axis=0)
        return both


@dataclass(frozen=True)
class ProbeWeights:
    """What scoring needs of a probe; labels that training could not define score NaN."""

    rotation: Rotation
    weight: Float[np.ndarray, "axes labels"]
    bias: Float[np.ndarray, "labels"]
    fitted: Bool[np.ndarray, "labels"]

    def scores(self, features: Float[np.ndarray, "records width"]) -> Float[np.ndarray, "records labels"]:
        """Logits, float32; NaN for labels that could not be fitted."""
        logits = self.rotation.apply(features) @ self.weight + self.bias
        return np.where(self.fitted, logits, np.float32(np.nan))


@dataclass(frozen=True)
class LinearProbe(ProbeWeights):
    """A fitted probe and how it was chosen."""

    inverse_l2: float
    validation_loss: dict[float, float]
    """Mean log loss over labels per value of the grid."""
    chosen_elsewhere: Bool[np.ndarray, "labels"]
    """Labels without both classes in validation: the other labels chose their L2."""
    iterations: int
    setting: str = ""
    """What was chosen beside the strength, if there was a choice."""


def fit_probe(train: ProbeData, validation: ProbeData, settings: LogisticProbeSpec = DEFAULT) -> LinearProbe:
    """Fit all labels at all L2 strengths in one solve on `train`, choose the strength on `validation`.

    Further scalings of features and weightings of classes are one solve each, and chosen with the strength.

    Raises:
        ProbeError: no label has both classes in training, or no record in validation has a known label.
    """
    fitted = train.both_classes
    if not fitted.any():
        raise ProbeError("linear probe: no label has a positive and a negative record in the training split")
    found = [
        _fit(train, validation, fitted, settings.inverse_l2, standardise=scaled, balanced=weight == "balanced")
        for scaled in settings.standardise
        for weight in settings.class_weight
    ]
    best = min(found, key=lambda probe: probe.validation_loss[probe.inverse_l2])
    return best if len(found) > 1 else replace(best, setting="")


def _fit(
    train: ProbeData,
    validation: ProbeData,
    fitted: Bool[np.ndarray, "labels"],
    grid: tuple[float, ...],
    *,
    standardise: bool,
    balanced: bool,
) -> LinearProbe:
    rotation = fit_rotation(train.features, None if standardise else np.ones(train.features.shape[1]))
    solution = solve(
        rotation.apply(train.features),
        rotation.variance.astype(np.float32),
        train.positive,
        train.known & fitted,
        np.asarray(grid, np.float32),
        balanced=balanced,
    )
    weights, biases = np.asarray(solution.weight), np.asarray(solution.bias)
    losses = _validation_losses(rotation, weights, biases, validation, validation.known & fitted)
    best = int(np.argmin(losses))
    return LinearProbe(
        rotation,
        weights[:, best],
        biases[best],
        fitted,
        grid[best],
        {c: float(loss) for c, loss in zip(grid, losses, strict=True)},
        fitted & ~validation.both_classes,
        int(solution.iterations),
        f"{'standardised' if standardise else 'raw'} features, class weights {'balanced' if balanced else 'none'}",
    )


def _validation_losses(
    rotation: Rotation,
    weights: Float[np.ndarray, "axes strengths labels"],
    biases: Float[np.ndarray, "strengths labels"],
    validation: ProbeData,
    known: Bool[np.ndarray, "records labels"],
) -> Float[np.ndarray, "strengths"]:
    """Mean over labels of the mean log loss over known validation records."""
    counts = known.sum(axis=0)
    if not counts.any():
        raise ProbeError("linear probe: no validation record has a known label, so no L2 strength can be chosen")
    rotated = rotation.apply(validation.features)
    losses = []
    for strength in range(weights.shape[1]):
        logits = (rotated @ weights[:, strength] + biases[strength]).astype(np.float64)
        loss = np.where(known, np.logaddexp(0.0, logits) - validation.positive * logits, 0.0).sum(axis=0)
        losses.append((loss[counts > 0] / counts[counts > 0]).mean())
    return np.array(losses)
