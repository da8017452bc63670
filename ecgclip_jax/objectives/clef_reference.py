"""CLEF's two losses in global view: the whole matrix of pairs, short, and the oracle of the tiled version.

Rows are the 2B views of B records, the two of a record side by side. The order of work is that of the released code
(Nokia-Bell-Labs/ecg-foundation-model, `lightning_contrastive.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ecgclip_jax.objectives.reference import Metrics, Scalar, cosine_matrix
from ecgclip_jax.spec.objectives import ClefSpec

MINMAX_EPSILON = 1e-6
LOG_EPSILON = 1e-8


class Guidance(NamedTuple):
    """What guides the contrast, for each row."""

    risk: Float[Array, "rows"]
    completeness: Float[Array, "rows"]
    """Known share q of the metadata behind the risk; 0 where nothing is masked: exp(-q q') is then 1."""


def loss(spec: ClefSpec, embedding: Float[Array, "rows dim"], guidance: Guidance) -> tuple[Scalar, Metrics]:
    """L_w + L_d of L2-normalised views, with their weights, or the mean of the two; both are the metrics.

    - D: the squared difference of risks, min-max scaled over the batch, raised to [alpha, 1]; times
      exp(-q q'), and 0 within a record.
    - L_w: mean of -log(e_p / (e_p + sum over negatives of w e_k + 1e-8)), e = exp(cosine / temperature - the row's
      largest), w = softmax of D over the full row, its two zeros included.
    - L_d: mean over all pairs of (min-max scaled cosine - (1 - D))^2.
    """
    cosine = cosine_matrix(embedding, embedding)
    itself, positive = same_record(embedding.shape[0])
    distance = risk_distance(spec.alpha, guidance, itself | positive)
    weight = jax.nn.softmax(distance, axis=1)
    logits = jnp.where(itself, -jnp.inf, cosine / spec.temperature)
    logits -= jax.lax.stop_gradient(logits.max(axis=1, keepdims=True))
    share = jnp.exp(logits) * jnp.where(positive, 1, weight)
    target = jnp.where(positive, logits, 0).sum(axis=1)
    weighted = (jnp.log(share.sum(axis=1) + LOG_EPSILON) - target).mean()
    low, high = cosine.min(), cosine.max()
    scaled = (cosine - low) / (high - low + MINMAX_EPSILON)
    misfit = jnp.square(scaled - (1 - distance)).mean()
    part = 0.5 if spec.reduction == "mean" else 1.0
    total = part * (spec.contrast_weight * weighted + spec.distance_weight * misfit)
    return total, {"loss_weighted": weighted, "loss_distance": misfit}


def same_record(rows: int) -> tuple[Bool[Array, "rows rows"], Bool[Array, "rows rows"]]:
    """Which pairs are a row with itself, and which the two views of a record."""
    record = jnp.arange(rows) // 2
    itself = jnp.eye(rows, dtype=bool)
    return itself, (record[:, None] == record[None, :]) & ~itself


def risk_distance(alpha: float, guidance: Guidance, same: Bool[Array, "rows rows"]) -> Float[Array, "rows rows"]:
    """D of every pair of rows."""
    risk, completeness = guidance
    difference = jnp.square(risk[:, None] - risk[None, :])
    # The smallest difference is a row's to itself: 0.
    scaled = difference / (difference.max() + MINMAX_EPSILON)
    mask = jnp.exp(-completeness[:, None] * completeness[None, :])
    return jnp.where(same, 0, (alpha + (1 - alpha) * scaled) * mask)
