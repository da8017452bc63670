"""Ridge regression on frozen features: numbers such as age or ejection fraction, several targets at once.

Features are standardised with the statistics of the training records that know the target, and turned to their
principal axes: there every strength has its solution in closed form. The strength is chosen on validation, for each
target by itself, by the squared error that ridge regression minimises. The grid is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ecgclip_jax.evaluation.protocols.logistic import Rotation, fit_rotation

STRENGTHS = (1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""scikit-learn's alpha: sum of squared errors + alpha |w|²."""


@dataclass(frozen=True)
class RegressionData:
    """Features and numbers of one split; an unknown number is NaN."""

    features: Float[np.ndarray, "records width"]
    target: Float[np.ndarray, "records targets"]


@dataclass(frozen=True)
class RidgeTarget:
    """A fitted target."""

    rotation: Rotation
    weight: Float[np.ndarray, "axes"]
    mean: float
    """Of the training targets: the prediction for an average ECG."""
    strength: float
    validation_error: dict[float, float]
    """Mean squared error per strength of the grid."""

    def predict(self, features: Float[np.ndarray, "records width"]) -> Float[np.ndarray, "records"]:
        """In the target's unit."""
        predicted: np.ndarray = self.rotation.apply(features).astype(np.float64) @ self.weight + self.mean
        return predicted


@dataclass(frozen=True)
class RidgeRegression:
    """One model per target; None where training or validation do not define one."""

    targets: tuple[RidgeTarget | None, ...]

    def predict(self, features: Float[np.ndarray, "records width"]) -> Float[np.ndarray, "records targets"]:
        """In the targets' units; NaN for targets without a model."""
        nothing = np.full(len(features), np.nan)
        return np.stack([nothing if t is None else t.predict(features) for t in self.targets], axis=1)


def fit_ridge(
    train: RegressionData, validation: RegressionData, grid: tuple[float, ...] = STRENGTHS
) -> RidgeRegression:
    """Fit every target at every strength, and choose each target's strength on `validation`.

    A target needs two different known values in training and one in validation.
    """
    columns = range(train.target.shape[1])
    return RidgeRegression(tuple(_fit_target(train, validation, column, grid) for column in columns))


def _fit_target(
    train: RegressionData, validation: RegressionData, column: int, grid: tuple[float, ...]
) -> RidgeTarget | None:
    known, checked = (~np.isnan(data.target[:, column]) for data in (train, validation))
    target = train.target[known, column].astype(np.float64)
    if len(np.unique(target)) < 2 or not checked.any():
        return None
    rotation = fit_rotation(train.features[known])
    mean = float(target.mean())
    along = rotation.apply(train.features[known]).astype(np.float64).T @ (target - mean)
    weights = along[:, None] / (len(target) * rotation.variance[:, None] + np.asarray(grid))
    seen = rotation.apply(validation.features[checked]).astype(np.float64)
    errors = np.square(seen @ weights + mean - validation.target[checked, column][:, None]).mean(axis=0)
    best = int(np.argmin(errors))
    by_strength = {strength: float(error) for strength, error in zip(grid, errors, strict=True)}
    return RidgeTarget(rotation, weights[:, best], mean, grid[best], by_strength)
