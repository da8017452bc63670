"""L2-regularised logistic regressions for all labels and all L2 strengths in one jitted solve.

Labels are columns of one problem. Strengths follow each other, each from the optimum of the one before: weak penalties
take ten times the iterations of strong ones, and side by side all would pay for the slowest.

Objective of each column (scikit-learn's, divided by C·n): mean over its known records of log(1 + exp(z)) - y z, plus
|w|² / (2 C n), the intercept free. Features are standardised and then rotated to their principal axes (ours). The
rotation leaves the penalty and so the optimum as they are, but makes the curvature near the start diagonal: L-BFGS
begins with almost the Newton step, and correlated features cost no more iterations than independent ones. An iteration
is two matrix products that all columns share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

MEMORY = 8
"""Curvature pairs kept by L-BFGS."""
MAX_ITERATIONS = 300
_FLAT = 1e-12
"""Share of the largest variance below which an axis is rounding."""
TOLERANCE = 1e-7
"""A column has converged when the decrease that its next step promises is below this share of its objective."""


@dataclass(frozen=True)
class Rotation:
    """Standardisation followed by the principal axes, fitted on training features only."""

    mean: Float[np.ndarray, "width"]
    axes: Float[np.ndarray, "width axes"]
    """Maps centred features to uncorrelated coordinates; a feature without variance maps to nothing."""
    variance: Float[np.ndarray, "axes"]

    def apply(self, features: Float[np.ndarray, "records width"]) -> Float[np.ndarray, "records axes"]:
        """Features in rotated coordinates, float32."""
        rotated: np.ndarray = ((features - self.mean) @ self.axes).astype(np.float32)
        return rotated


def fit_rotation(
    features: Float[np.ndarray, "records width"], spread: Float[np.ndarray, "width"] | None = None
) -> Rotation:
    """Standardisation and principal axes of training features; axes along which they do not vary are left out.

    With few labelled records `spread`, the features' standard deviations, may come from more records than have labels
    (default: from these). The axes must be those of the records that are solved for: with fewer records than features
    they are fewer too, and axes of other records would cost many times the iterations.
    """
    wide = features.astype(np.float64)
    mean, spread = wide.mean(axis=0), wide.std(axis=0) if spread is None else spread.astype(np.float64)
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6 * np.abs(mean) + 1e-12)
    standard = (wide - mean) * inverse
    variance, axes = np.linalg.eigh(standard.T @ standard / len(wide))
    varies = variance > _FLAT * max(float(variance[-1]), _FLAT)
    return Rotation(mean, inverse[:, None] * axes[:, varies], variance[varies])


class Solution(NamedTuple):
    """Optima, one per L2 strength and label."""

    weight: Float[Array, "axes strengths labels"]
    bias: Float[Array, "strengths labels"]
    objective: Float[Array, "strengths labels"]
    iterations: Int[Array, ""]
    """Of the strength that took most."""


class _State(NamedTuple):
    theta: Float[Array, "coords columns"]
    logits: Float[Array, "records columns"]
    value: Float[Array, "columns"]
    gradient: Float[Array, "coords columns"]
    steps: Float[Array, "memory coords columns"]
    changes: Float[Array, "memory coords columns"]
    active: Bool[Array, "columns"]
    iteration: Int[Array, ""]


def _l_bfgs_direction(
    state: _State, inverse_curvature: Float[Array, "coords columns"]
) -> Float[Array, "coords columns"]:
    """Two-loop recursion (Nocedal & Wright, algorithm 7.4), all columns at once; an empty pair changes nothing."""
    curvature = jnp.sum(state.steps * state.changes, axis=1)
    rho = jnp.where(curvature > 0, 1.0 / jnp.where(curvature > 0, curvature, 1.0), 0.0)

    def backward(i: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        q, alpha = carry
        k = MEMORY - 1 - i
        a = rho[k] * jnp.sum(state.steps[k] * q, axis=0)
        return q - a * state.changes[k], alpha.at[k].set(a)

    def forward(k: Int[Array, ""], r: Array) -> Array:
        beta = rho[k] * jnp.sum(state.changes[k] * r, axis=0)
        step: Array = r + (alpha[k] - beta) * state.steps[k]
        return step

    q, alpha = jax.lax.fori_loop(0, MEMORY, backward, (state.gradient, jnp.zeros_like(rho)))
    ascent: Array = jax.lax.fori_loop(0, MEMORY, forward, inverse_curvature * q)
    return -ascent


@partial(jax.jit, static_argnames=("max_iterations", "balanced"))
def solve(
    features: Float[Array, "records axes"],
    variance: Float[Array, "axes"],
    positive: Bool[Array, "records labels"],
    known: Bool[Array, "records labels"],
    inverse_l2: Float[Array, "strengths"],
    max_iterations: int = MAX_ITERATIONS,
    balanced: bool = False,
) -> Solution:
    """All logistic regressions: L-BFGS with a backtracking line search per column, labels at once, strengths in turn.

    Args:
        features: centred features with (nearly) uncorrelated columns, see `fit_rotation`.
        variance: of each column of `features`; only the speed depends on it.
        positive: labels; a label without a known positive or a known negative has no meaningful solution.
        known: which labels count; a label that is never known gets weights of zero.
        inverse_l2: scikit-learn's C; best from the smallest to the largest.
        max_iterations: per strength, after which a column stops wherever it is.
        balanced: both classes of a label weigh alike (scikit-learn's class_weight="balanced").
    """
    design = jnp.concatenate([features, jnp.ones((features.shape[0], 1), features.dtype)], axis=1)
    count = jnp.maximum(jnp.sum(known, axis=0), 1)
    share = known / count
    if balanced:
        share *= jnp.where(positive, 0.5 / _share(share * positive), 0.5 / _share(share * ~positive))
    prevalence = jnp.clip(jnp.sum(share * positive, axis=0), 1e-6, 1 - 1e-6)
    prior = jnp.append(jnp.zeros(features.shape[1]), 1.0)[:, None] * (jnp.log(prevalence) - jnp.log1p(-prevalence))
    weighted = _Weighted(design, share, share * positive, jnp.append(variance, 1.0)[:, None], prevalence)

    def one_strength(start: Array, inverse: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        penalty = jnp.append(jnp.ones(features.shape[1]), 0.0)[:, None] / (inverse * count)
        end = _descend(weighted, penalty, start, max_iterations)
        return end.theta, (end.theta, end.value, end.iteration)

    _, (theta, value, iterations) = jax.lax.scan(one_strength, prior, inverse_l2)
    return Solution(jnp.moveaxis(theta[:, :-1], 0, 1), theta[:, -1], value, jnp.max(iterations))


def _share(part: Float[Array, "records labels"]) -> Float[Array, "labels"]:
    """Of a class, by label; never 0, so that a label without the class has no weight that is not finite."""
    return jnp.maximum(jnp.sum(part, axis=0), 1e-12)


class _Weighted(NamedTuple):
    """One problem per column, but for its penalty."""

    design: Float[Array, "records coords"]
    share: Float[Array, "records columns"]
    """Weight of each record's loss; 0 where the label is unknown."""
    target: Float[Array, "records columns"]
    """`share` where the label is positive."""
    variance: Float[Array, "coords 1"]
    prevalence: Float[Array, "columns"]


def _descend(
    problem: _Weighted,
    penalty: Float[Array, "coords columns"],
    theta: Float[Array, "coords columns"],
    max_iterations: int,
) -> _State:
    """L-BFGS from `theta` until every column has converged."""
    design, share, target, prevalence = problem.design, problem.share, problem.target, problem.prevalence
    curvature = problem.variance * (prevalence * (1.0 - prevalence)) + penalty
    inverse_curvature = 1.0 / jnp.maximum(curvature, 1e-12)

    def value_at(theta: Array, logits: Array) -> Array:
        loss = jnp.sum(share * jax.nn.softplus(logits) - target * logits, axis=0)
        return loss + 0.5 * jnp.sum(penalty * theta**2, axis=0)

    def gradient_at(theta: Array, logits: Array) -> Array:
        return design.T @ (share * jax.nn.sigmoid(logits) - target) + penalty * theta

    def iterate(state: _State) -> _State:
        direction = _l_bfgs_direction(state, inverse_curvature)
        slope = jnp.sum(direction * state.gradient, axis=0)
        active = state.active & (-0.5 * slope > TOLERANCE * state.value)
        along = design @ direction
        slack = 1e-7 * state.value  # float32 cannot resolve a smaller change

        def value_after(step: Array) -> Array:
            return value_at(state.theta + step * direction, state.logits + step * along)

        def too_long(step: Array, value: Array) -> Array:
            return active & (value > state.value + 1e-4 * step * slope + slack)

        def shorten(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            step, value, halvings = carry
            step = jnp.where(too_long(step, value), 0.5 * step, step)
            return step, value_after(step), halvings + 1

        step = active.astype(along.dtype)
        step, value, _ = jax.lax.while_loop(
            lambda c: jnp.any(too_long(c[0], c[1])) & (c[2] < 20), shorten, (step, value_after(step), jnp.int32(0))
        )
        stuck = too_long(step, value)
        step, value = jnp.where(stuck, 0.0, step), jnp.where(stuck, state.value, value)
        theta = state.theta + step * direction
        logits = state.logits + step * along
        gradient = gradient_at(theta, logits)
        return _State(
            theta,
            logits,
            value,
            gradient,
            jnp.concatenate([state.steps[1:], (theta - state.theta)[None]]),
            jnp.concatenate([state.changes[1:], (gradient - state.gradient)[None]]),
            active & (step > 0) & (value < state.value),
            state.iteration + 1,
        )

    logits = design @ theta
    gradient = gradient_at(theta, logits)
    empty = jnp.zeros((MEMORY, *theta.shape))
    active = jnp.ones(theta.shape[1], bool)
    start = _State(theta, logits, value_at(theta, logits), gradient, empty, empty, active, jnp.int32(0))
    end: _State = jax.lax.while_loop(lambda s: jnp.any(s.active) & (s.iteration < max_iterations), iterate, start)
    return end
