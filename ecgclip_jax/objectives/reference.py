"""The contrastive losses in global view: short, obviously right, and the oracle of the sharded versions.

Both losses compare every ECG with every report of the global batch, so they hold the whole B x B matrix. Row i of
`ecg` and row i of `text` are a pair (the positive); every other pair is a negative, unless it is masked:

- two rows that share a value in any column of `groups` (same patient, identical report) are no negatives;
- a row with `valid` false (no usable report) is neither row, column nor negative.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Direction = Literal["sum", "mean"]
Scalar = Float[Array, ""]
Metrics = dict[str, Scalar]


def infonce(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Scalar,
    groups: Int[Array, "batch group"],
    valid: Bool[Array, "batch"],
    *,
    direction: Direction,
) -> tuple[Scalar, Metrics]:
    """InfoNCE over L2-normalised embeddings: cross-entropy of rows and of columns with the diagonal as target.

    `direction` adds both (MERL's released loss) or takes their mean (CLIP, arXiv 2103.00020). Logits and result are
    float32 or wider. Returns the loss averaged over valid rows, and the metrics of `similarity_metrics`.
    """
    cosine = cosine_matrix(ecg, text)
    positive, negative = pairs(groups, valid)
    logits = jnp.where(positive | negative, scale * cosine, -jnp.inf)
    target = jnp.diagonal(logits)
    ecg_to_text = jax.nn.logsumexp(logits, axis=1) - target
    text_to_ecg = jax.nn.logsumexp(logits, axis=0) - target
    both = mean_over_valid(ecg_to_text + text_to_ecg, valid)
    return both if direction == "sum" else both / 2, similarity_metrics(cosine, negative, valid)


def sigmoid(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Scalar,
    bias: Scalar,
    groups: Int[Array, "batch group"],
    valid: Bool[Array, "batch"],
) -> tuple[Scalar, Metrics]:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343): sum over the pairs of a row, mean over valid rows.

    Logits and result are float32 or wider; metrics as in `infonce`.
    """
    cosine = cosine_matrix(ecg, text)
    positive, negative = pairs(groups, valid)
    logits = scale * cosine + bias
    pair_loss = jnp.where(positive, jax.nn.softplus(-logits), 0) + jnp.where(negative, jax.nn.softplus(logits), 0)
    return mean_over_valid(pair_loss.sum(axis=1), valid), similarity_metrics(cosine, negative, valid)


def cosine_matrix(ecg: Float[Array, "batch dim"], text: Float[Array, "batch dim"]) -> Float[Array, "batch batch"]:
    """Cosine of every pair of normalised embeddings, in float32 or wider whatever the towers computed in."""
    return jnp.matmul(at_least_float32(ecg), at_least_float32(text).T, precision=jax.lax.Precision.HIGHEST)


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The array widened to float32; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pairs(
    groups: Int[Array, "batch group"], valid: Bool[Array, "batch"]
) -> tuple[Bool[Array, "batch batch"], Bool[Array, "batch batch"]]:
    """Which pairs are positives (the diagonal) and which are negatives (see the module)."""
    positive = jnp.eye(valid.shape[0], dtype=bool)
    same_group = (groups[:, None, :] == groups[None, :, :]).any(axis=-1)
    return positive, valid[:, None] & valid[None, :] & ~same_group & ~positive


def mean_over_valid(values: Float[Array, "batch"], valid: Bool[Array, "batch"]) -> Scalar:
    """Mean over the rows that are valid; zero where none is."""
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1)


def similarity_metrics(
    cosine: Float[Array, "batch batch"], negative: Bool[Array, "batch batch"], valid: Bool[Array, "batch"]
) -> Metrics:
    """How well the batch is told apart: recall@1 in both directions, mean cosine of positives and of negatives.

    A row counts as found only if its positive is strictly above all its negatives: collapsed embeddings score 0.
    """
    cosine = jax.lax.stop_gradient(cosine)
    target = jnp.diagonal(cosine)
    rivals = jnp.where(negative, cosine, -jnp.inf)
    return {
        "recall_at_1_ecg_to_text": mean_over_valid((target > rivals.max(axis=1)).astype(cosine.dtype), valid),
        "recall_at_1_text_to_ecg": mean_over_valid((target > rivals.max(axis=0)).astype(cosine.dtype), valid),
        "positive_cosine": mean_over_valid(target, valid),
        "negative_cosine": jnp.where(negative, cosine, 0).sum() / jnp.maximum(negative.sum(), 1),
    }
