"""Linear probe trained by Adam for a number of epochs, for protocols that are defined so (MERL's, BenchECG's).

The trajectory is the result: weights after every epoch, from which validation chooses. The arithmetic is PyTorch's:
uniform start of a linear layer, mean of the binary cross-entropies over a batch's records and labels, Adam with its
decay either in the gradient (Adam) or apart (AdamW), on weights and biases alike. Unknown labels do not count (ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, ProbeError
from ecgclip_jax.metrics.ranking import auroc
from ecgclip_jax.spec.evaluation import GradientProbeSpec

NORM_MOMENTUM, NORM_EPSILON = 0.1, 1e-5
"""PyTorch's of BatchNorm1d."""


@dataclass(frozen=True)
class Trajectory:
    """A probe after each of its epochs."""

    weight: Float[np.ndarray, "epochs width labels"]
    bias: Float[np.ndarray, "epochs labels"]
    """A batch norm is folded into both."""
    fitted: Bool[np.ndarray, "labels"]
    chosen: int
    """The epoch of highest mean validation AUROC, counted from 0."""

    def scores(self, features: Float[np.ndarray, "records width"], epoch: int) -> Float[np.ndarray, "records labels"]:
        """Logits after an epoch, float32; NaN for labels that training could not define."""
        logits = features @ self.weight[epoch] + self.bias[epoch]
        return np.where(self.fitted, logits.astype(np.float32), np.float32(np.nan))


class _State(NamedTuple):
    params: dict[str, Array]
    optimizer: optax.OptState
    mean: Float[Array, "width"]
    variance: Float[Array, "width"]
    """Running statistics of the batch norm."""


class _Labelled(NamedTuple):
    features: Float[Array, "records width"]
    positive: Float[Array, "records labels"]
    counts: Float[Array, "records labels"]


def fit_gradient_probe(train: ProbeData, validation: ProbeData, settings: GradientProbeSpec, seed: int) -> Trajectory:
    """Trains on `train` and chooses the epoch on `validation`; `seed` draws the start and the order of records.

    Raises:
        ProbeError: no label has both classes in training, or none has them in validation.
    """
    fitted = train.both_classes
    if not fitted.any():
        raise ProbeError("gradient probe: no label has a positive and a negative record in the training split")
    if not (fitted & validation.both_classes).any():
        raise ProbeError("gradient probe: no label has both classes in validation, so no epoch can be chosen")
    n, rng = len(train.features), np.random.default_rng(seed)
    steps = -(-n // settings.batch)
    order = np.full((settings.epochs, steps * settings.batch), -1, np.int32)
    order[:, :n] = np.argsort(rng.random((settings.epochs, n)), axis=1)
    bound = train.features.shape[1] ** -0.5
    start = {
        "weight": rng.uniform(-bound, bound, (train.features.shape[1], len(fitted))).astype(np.float32),
        "bias": rng.uniform(-bound, bound, len(fitted)).astype(np.float32),
    }
    data = _Labelled(
        jnp.asarray(train.features, jnp.float32),
        jnp.asarray(train.positive, jnp.float32),
        jnp.asarray(train.known & fitted, jnp.float32),
    )
    weight, bias = _train(start, data, order.reshape(settings.epochs, steps, settings.batch), settings)
    path = Trajectory(np.asarray(weight), np.asarray(bias), fitted, 0)
    merit = [mean_auroc(validation, path.scores(validation.features, epoch)) for epoch in range(settings.epochs)]
    return Trajectory(path.weight, path.bias, fitted, int(np.argmax(merit)))


def mean_auroc(truth: ProbeData, scores: Float[np.ndarray, "records labels"]) -> float:
    """Mean over the labels that have scores and both classes (Mann-Whitney, ties half)."""
    found = []
    for label in np.flatnonzero(truth.both_classes & np.isfinite(scores).all(axis=0)):
        rows = truth.known[:, label]
        found.append(auroc(truth.positive[rows, label], scores[rows, label]))
    return float(np.mean(found)) if found else float("nan")


@partial(jax.jit, static_argnames=("settings",))
def _train(
    start: dict[str, Array],
    data: _Labelled,
    order: Int[Array, "epochs steps batch"],
    settings: GradientProbeSpec,
) -> tuple[Float[Array, "epochs width labels"], Float[Array, "epochs labels"]]:
    width, steps = data.features.shape[1], order.shape[1]
    params = dict(start)
    if settings.batch_norm:
        params |= {"scale": jnp.ones(width), "shift": jnp.zeros(width)}
    optimizer = _adam(settings, steps)

    def loss(params: dict[str, Array], rows: Array, running: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        there = (rows >= 0).astype(jnp.float32)[:, None]
        x = data.features[rows]
        if settings.batch_norm:
            x, running = _normalised(x, there, params, running)
        logits = x @ params["weight"] + params["bias"]
        counts, positive = data.counts[rows] * there, data.positive[rows]
        total = jnp.sum(counts * (jax.nn.softplus(logits) - positive * logits))
        return total / jnp.maximum(jnp.sum(counts), 1.0), running

    def update(state: _State, rows: Array) -> tuple[_State, None]:
        gradient, (mean, variance) = jax.grad(loss, has_aux=True)(state.params, rows, (state.mean, state.variance))
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        return _State(optax.apply_updates(state.params, updates), moments, mean, variance), None

    def epoch(state: _State, rows: Array) -> tuple[_State, tuple[Array, Array]]:
        state, _ = jax.lax.scan(update, state, rows)
        return state, _folded(state)

    begin = _State(params, optimizer.init(params), jnp.zeros(width), jnp.ones(width))
    _, path = jax.lax.scan(epoch, begin, order)
    return path


def _adam(settings: GradientProbeSpec, steps: int) -> optax.GradientTransformation:
    """Adam with PyTorch's constants (optax has the same), a tenth of the rate from the milestone on."""
    milestone = settings.milestone * (1 if settings.milestone_in_updates else steps)
    rate = optax.piecewise_constant_schedule(settings.learning_rate, {milestone: 0.1} if milestone > 0 else None)
    if settings.decoupled:
        return optax.adamw(rate, weight_decay=settings.weight_decay)
    return optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.adam(rate))


def _normalised(
    x: Float[Array, "batch width"],
    there: Float[Array, "batch 1"],
    params: dict[str, Array],
    running: tuple[Array, Array],
) -> tuple[Float[Array, "batch width"], tuple[Array, Array]]:
    """Batch norm in training, and its running statistics after the batch; padded records do not count."""
    n = jnp.sum(there)
    mean = jnp.sum(there * x, axis=0) / n
    variance = jnp.sum(there * (x - mean) ** 2, axis=0) / n
    unbiased = variance * n / jnp.maximum(n - 1, 1.0)
    old_mean, old_variance = running
    kept = (
        (1 - NORM_MOMENTUM) * old_mean + NORM_MOMENTUM * mean,
        (1 - NORM_MOMENTUM) * old_variance + NORM_MOMENTUM * unbiased,
    )
    standard = (x - mean) / jnp.sqrt(variance + NORM_EPSILON)
    return standard * params["scale"] + params["shift"], jax.lax.stop_gradient(kept)


def _folded(state: _State) -> tuple[Float[Array, "width labels"], Float[Array, "labels"]]:
    """Weights and bias that do what the probe does outside training."""
    weight, bias = state.params["weight"], state.params["bias"]
    if "scale" not in state.params:
        return weight, bias
    factor = state.params["scale"] / jnp.sqrt(state.variance + NORM_EPSILON)
    return factor[:, None] * weight, bias + (state.params["shift"] - factor * state.mean) @ weight
