"""The contrastive losses over a batch that is sharded over mesh axes: the same values as `reference`, less memory.

Each device compares its own rows with all columns, which it gathers; the gradient flows back through the gather
(a reduce-scatter). A device of n holds B/n x B logits, never B x B. The functions take the names of the mesh axes
over which the batch is split and find the mesh in the context (`jax.set_mesh`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.objectives.reference import Direction, Metrics, Scalar, at_least_float32

Axes = tuple[str, ...]


class _Side(NamedTuple):
    """One tower's embeddings with what decides which pairs count."""

    embedding: Float[Array, "rows dim"]
    groups: Int[Array, "rows group"]
    valid: Bool[Array, "rows"]


class _Block(NamedTuple):
    """Local rows against all columns."""

    cosine: Float[Array, "rows columns"]
    positive: Bool[Array, "rows columns"]
    negative: Bool[Array, "rows columns"]


def infonce(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Scalar,
    groups: Int[Array, "batch group"],
    valid: Bool[Array, "batch"],
    *,
    direction: Direction,
    axes: Axes,
) -> tuple[Scalar, Metrics]:
    """`reference.infonce` for a batch sharded over `axes`; the batch must divide by their number of devices."""

    def local(
        ecg: Float[Array, "rows dim"],
        text: Float[Array, "rows dim"],
        groups: Int[Array, "rows group"],
        valid: Bool[Array, "rows"],
        scale: Scalar,
    ) -> tuple[Scalar, Metrics]:
        forward, backward = _both_blocks(_Side(ecg, groups, valid), _Side(text, groups, valid), axes)
        losses = _cross_entropy(forward, scale) + _cross_entropy(backward, scale)
        loss = _mean_over_valid(losses, valid, axes)
        return loss if direction == "sum" else loss / 2, _metrics(forward, backward, valid, axes)

    return _over_rows(local, axes)(ecg, text, groups, valid, scale)


def sigmoid(
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Scalar,
    bias: Scalar,
    groups: Int[Array, "batch group"],
    valid: Bool[Array, "batch"],
    *,
    axes: Axes,
) -> tuple[Scalar, Metrics]:
    """`reference.sigmoid` for a batch sharded over `axes`; the batch must divide by their number of devices."""

    def local(
        ecg: Float[Array, "rows dim"],
        text: Float[Array, "rows dim"],
        groups: Int[Array, "rows group"],
        valid: Bool[Array, "rows"],
        scale: Scalar,
        bias: Scalar,
    ) -> tuple[Scalar, Metrics]:
        forward, backward = _both_blocks(_Side(ecg, groups, valid), _Side(text, groups, valid), axes)
        logits = scale * forward.cosine + bias
        pair_loss = jnp.where(forward.positive, jax.nn.softplus(-logits), 0)
        pair_loss += jnp.where(forward.negative, jax.nn.softplus(logits), 0)
        return _mean_over_valid(pair_loss.sum(axis=1), valid, axes), _metrics(forward, backward, valid, axes)

    return _over_rows(local, axes)(ecg, text, groups, valid, scale, bias)


def _over_rows(local: Callable[..., tuple[Scalar, Metrics]], axes: Axes) -> Callable[..., tuple[Scalar, Metrics]]:
    """`shard_map` of a function of four row-sharded arrays and any number of replicated scalars."""
    rows = PartitionSpec(axes)

    def mapped(*arrays: Array) -> tuple[Scalar, Metrics]:
        specs = (rows,) * 4 + (PartitionSpec(),) * (len(arrays) - 4)
        return jax.shard_map(local, in_specs=specs, out_specs=PartitionSpec())(*arrays)

    return mapped


def _both_blocks(ecg: _Side, text: _Side, axes: Axes) -> tuple[_Block, _Block]:
    """Local ECGs against all reports, and local reports against all ECGs."""
    return _block(ecg, _gather(text, axes), axes), _block(text, _gather(ecg, axes), axes)


def _gather(side: _Side, axes: Axes) -> _Side:
    gathered: _Side = jax.tree.map(partial(jax.lax.all_gather, axis_name=axes, tiled=True), side)
    return gathered


def _block(rows: _Side, columns: _Side, axes: Axes) -> _Block:
    first = jax.lax.axis_index(axes) * rows.valid.shape[0]
    row = first + jnp.arange(rows.valid.shape[0])
    positive = row[:, None] == jnp.arange(columns.valid.shape[0])[None, :]
    same_group = (rows.groups[:, None, :] == columns.groups[None, :, :]).any(axis=-1)
    cosine = jnp.matmul(
        at_least_float32(rows.embedding), at_least_float32(columns.embedding).T, precision=jax.lax.Precision.HIGHEST
    )
    return _Block(cosine, positive, rows.valid[:, None] & columns.valid[None, :] & ~same_group & ~positive)


def _positive_cosine(block: _Block) -> Float[Array, "rows"]:
    return jnp.where(block.positive, block.cosine, 0).sum(axis=1)


def _cross_entropy(block: _Block, scale: Scalar) -> Float[Array, "rows"]:
    logits = jnp.where(block.positive | block.negative, scale * block.cosine, -jnp.inf)
    return jax.nn.logsumexp(logits, axis=1) - scale * _positive_cosine(block)


def _mean_over_valid(values: Float[Array, "rows"], valid: Bool[Array, "rows"], axes: Axes) -> Scalar:
    total, n_valid = jax.lax.psum((jnp.where(valid, values, 0).sum(), valid.sum()), axes)
    mean: Scalar = total / jnp.maximum(n_valid, 1)
    return mean


def _metrics(forward: _Block, backward: _Block, valid: Bool[Array, "rows"], axes: Axes) -> Metrics:
    forward, backward = jax.lax.stop_gradient((forward, backward))
    target = _positive_cosine(forward)

    def recall(block: _Block) -> Scalar:
        rivals = jnp.where(block.negative, block.cosine, -jnp.inf).max(axis=1)
        return _mean_over_valid((target > rivals).astype(target.dtype), valid, axes)

    n_negatives = jax.lax.psum(forward.negative.sum(), axes)
    negative_sum = jax.lax.psum(jnp.where(forward.negative, forward.cosine, 0).sum(), axes)
    return {
        "recall_at_1_ecg_to_text": recall(forward),
        "recall_at_1_text_to_ecg": recall(backward),
        "positive_cosine": _mean_over_valid(target, valid, axes),
        "negative_cosine": negative_sum / jnp.maximum(n_negatives, 1),
    }
