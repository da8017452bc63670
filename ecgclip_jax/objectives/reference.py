"""The contrastive losses in global view: short, obviously right, and the oracle of the tiled versions (`tiled`).

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

Direction = Literal["sum", "mean", "rows"]
Reduction = Literal["rows", "pairs"]
"""Of a sum over pairs: by the number of valid rows (SigLIP), or of all allowed pairs (FOCAL)."""
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
    factors: Float[Array, "batch factor"] | None = None,
    soft_target_weight: float = 0.0,
    soft_target_scale: float = 10.0,
) -> tuple[Scalar, Metrics]:
    """InfoNCE over L2-normalised embeddings: cross-entropy of rows and of columns with the diagonal as target.

    `direction` adds both (MERL's released loss), takes their mean (CLIP, arXiv 2103.00020), or has the rows alone
    (MoCo: queries over keys). Logits and result are float32 or wider. Returns the loss averaged over valid rows, and
    the metrics of `similarity_metrics`.

    With `factors` (unit vectors, no gradient) the share `soft_target_weight` of every target is spread over the
    row's, or the column's, allowed pairs: softmax of `soft_target_scale` times the product of their factors (ours).
    """
    cosine = cosine_matrix(ecg, text)
    positive, negative = pairs(groups, valid)
    allowed = positive | negative
    logits = scale * cosine

    def cross_entropy(axis: int) -> Float[Array, "batch"]:
        target = positive.astype(logits.dtype)
        if factors is not None:
            similarity = jnp.where(allowed, soft_target_scale * similarity_matrix(factors), -jnp.inf)
            target = (1 - soft_target_weight) * target + soft_target_weight * jax.nn.softmax(similarity, axis=axis)
        return jax.nn.logsumexp(jnp.where(allowed, logits, -jnp.inf), axis=axis) - (target * logits).sum(axis=axis)

    losses = cross_entropy(1) if direction == "rows" else cross_entropy(1) + cross_entropy(0)
    loss = mean_over_valid(losses, valid)
    return loss / 2 if direction == "mean" else loss, similarity_metrics(cosine, negative, valid)


def sigmoid(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Scalar,
    bias: Scalar,
    groups: Int[Array, "batch group"],
    valid: Bool[Array, "batch"],
    *,
    factors: Float[Array, "batch factor"] | None = None,
    reduction: Reduction = "rows",
) -> tuple[Scalar, Metrics]:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343): binary cross-entropy of every allowed pair.

    The target of a pair is 1 on the diagonal and 0 elsewhere; with `factors` (unit vectors, no gradient) it is
    (1 + their product) / 2 everywhere (FOCAL's released code). Logits and result are float32 or wider; metrics as in
    `infonce`.
    """
    cosine = cosine_matrix(ecg, text)
    positive, negative = pairs(groups, valid)
    logits = scale * cosine + bias
    target = positive.astype(logits.dtype) if factors is None else (1 + similarity_matrix(factors)) / 2
    pair_loss = target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)
    loss = reduced(pair_loss, (positive & valid[:, None]) | negative, valid, reduction)
    return loss, similarity_metrics(cosine, negative, valid)


def l1_alignment(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    factors: Float[Array, "batch factor"],
    valid: Bool[Array, "batch"],
    *,
    reduction: Reduction = "rows",
) -> Scalar:
    """FG-CLEP's false-negative term, as a third party reads it: |cosine - product of the factors| over all valid pairs.

    `factors` are the L2-normalised text embeddings (or others); they have no gradient.
    """
    difference = jnp.abs(cosine_matrix(ecg, text) - similarity_matrix(factors))
    return reduced(difference, valid[:, None] & valid[None, :], valid, reduction)


def similarity_matrix(factors: Float[Array, "batch factor"]) -> Float[Array, "batch batch"]:
    """Product of every pair of factors, without gradient."""
    return cosine_matrix(jax.lax.stop_gradient(factors), jax.lax.stop_gradient(factors))


def reduced(
    pair_values: Float[Array, "batch batch"],
    allowed: Bool[Array, "batch batch"],
    valid: Bool[Array, "batch"],
    reduction: Reduction,
) -> Scalar:
    """Sum over allowed pairs by the number of valid rows, or of allowed pairs; zero where there is none."""
    count = valid.sum() if reduction == "rows" else allowed.sum()
    return jnp.where(allowed, pair_values, 0).sum() / jnp.maximum(count, 1)


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
