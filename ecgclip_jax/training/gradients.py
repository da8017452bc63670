"""Loss and gradients of a global batch: in one pass, or with the towers seeing it in micro-batches.

A contrastive loss compares every row with every other, so accumulating the losses of parts would be another loss. In
parts it takes two passes (GradCache, arXiv 2101.06983): the first embeds every micro-batch and keeps only the
embeddings, the loss and its gradient are taken over all of them, and the second embeds each micro-batch again and
pulls its share of that gradient back. Every draw belongs to a record's key, so both passes see the same dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Key

from ecgclip_jax.contracts import Batch, Embeddings, RowKeys
from ecgclip_jax.objectives.reference import Metrics
from ecgclip_jax.parallel.mesh import MESH_AXES
from ecgclip_jax.signal.operators import SignalOperators
from ecgclip_jax.signal.preprocessing import training_views
from ecgclip_jax.training.optimizer import frozen_mask
from ecgclip_jax.training.state import TrainingParts, TrainState, Tree, step_key

PREPROCESSING = "preprocessing"
"""Name under which its operations stand in the compiled program (`ecgclip profile`)."""
_MODEL_STREAM, _AUGMENT_STREAM = range(2)


@dataclass(frozen=True)
class Gradients:
    """What one global batch says: gradients of all parameters, running statistics after it, metrics with `loss`."""

    params: Tree
    stats: Tree
    metrics: Metrics


def gradients(parts: TrainingParts, operators: SignalOperators, state: TrainState, batch: Batch) -> Gradients:
    """Loss and gradients of a batch `[B, …]`, or `[M, B/M, …]` in M micro-batches; both give the same.

    With micro-batches the metrics hold `replay_difference`, the largest difference between the embeddings of the two
    passes: anything but 0 says that the second pass did not see what the first one saw.
    """
    micro_batches = parts.experiment.memory.micro_batches
    embed = _embedder(parts, operators, state)
    keys = row_keys(step_key(parts.experiment, state.step), parts.experiment.data.batch_global)
    if micro_batches == 1:
        return _one_pass(parts, embed, state, batch, keys)
    return _two_passes(parts, embed, state, batch, keys.reshape(micro_batches, -1))


def row_keys(key: jax.Array, rows: int) -> RowKeys:
    """One key per row of the global batch."""
    keys: RowKeys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rows))
    return keys


_Embed = Callable[[Tree, Batch, RowKeys], tuple[Embeddings, Tree]]
"""(parameters, rows, their keys) → embeddings of the rows and the running statistics after them."""


def _embedder(parts: TrainingParts, operators: SignalOperators, state: TrainState) -> _Embed:
    """The way from stored microvolts to embeddings; frozen parameters stop the gradient, so its part vanishes."""
    experiment, objective = parts.experiment, parts.objective
    frozen = frozen_mask(experiment.optimizer, state.params)
    stats = state.batch_stats | ({"target": state.target_stats} if state.target else {})
    views_of = partial(training_views, experiment.signal, experiment.augment, experiment.view, objective.spec.views)
    # Each device prepares its own rows: left to the compiler, the filters' branches gather the batch on every device.
    by_rows = PartitionSpec(MESH_AXES)
    row_wise_views = jax.shard_map(
        views_of, in_specs=(PartitionSpec(), *(by_rows,) * 4), out_specs=by_rows, check_vma=False
    )

    def embed(params: Tree, rows: Batch, keys: RowKeys) -> tuple[Embeddings, Tree]:
        params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen)
        augment_keys = _stream(keys, _AUGMENT_STREAM)
        with jax.named_scope(PREPROCESSING):
            views = row_wise_views(operators, rows.ecg_uv, rows.extras, rows.extras_present, augment_keys)
        return objective.embed(
            parts.towers,
            parts.heads,
            params,
            stats,
            views,
            rows,
            train=True,
            keys=_stream(keys, _MODEL_STREAM),
            target=jax.lax.stop_gradient(state.target) if state.target else None,
        )

    return embed


def _one_pass(parts: TrainingParts, embed: _Embed, state: TrainState, batch: Batch, keys: RowKeys) -> Gradients:
    def loss(params: Tree) -> tuple[Array, tuple[Tree, Metrics]]:
        embeddings, stats = embed(params, batch, keys)
        value, metrics = parts.objective.loss(embeddings, params["objective"], batch, MESH_AXES)
        return value, (stats, metrics)

    (_, (stats, metrics)), by_params = jax.value_and_grad(loss, has_aux=True)(state.params)
    return Gradients(by_params, stats, metrics)


def _two_passes(
    parts: TrainingParts, embed: _Embed, state: TrainState, batch: Batch, keys: Key[Array, "micro_batches rows"]
) -> Gradients:
    def first(_: None, rows: tuple[Batch, RowKeys]) -> tuple[None, tuple[Embeddings, Tree]]:
        return None, embed(state.params, *rows)

    _, (embeddings, stats) = jax.lax.scan(first, None, (batch, keys))

    def loss(embeddings: Embeddings, params: Tree) -> tuple[Array, Metrics]:
        return parts.objective.loss(_as_rows(embeddings), params, _as_rows(batch), MESH_AXES)

    (_, metrics), (by_embeddings, by_objective) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        embeddings, state.params["objective"]
    )

    def second(
        total: tuple[Tree, Array], part: tuple[Batch, RowKeys, Embeddings, Embeddings]
    ) -> tuple[tuple[Tree, Array], None]:
        rows, row_keys, cached, by_embedding = part

        def embed_again(params: Tree) -> Embeddings:
            return embed(params, rows, row_keys)[0]

        again, pull_back = jax.vjp(embed_again, state.params)
        (by_params,) = pull_back(by_embedding)
        return (jax.tree.map(jnp.add, total[0], by_params), jnp.maximum(total[1], _difference(again, cached))), None

    zeros = jax.tree.map(jnp.zeros_like, state.params) | {"objective": by_objective}
    (by_params, replay_difference), _ = jax.lax.scan(
        second, (zeros, jnp.zeros(())), (batch, keys, embeddings, by_embeddings)
    )
    metrics = metrics | {"replay_difference": replay_difference}
    # Each micro-batch moved the running statistics from the same start: their mean is one move by the mean.
    return Gradients(by_params, jax.tree.map(lambda s: s.mean(axis=0), stats), metrics)


def _as_rows(tree: Any) -> Any:
    """`[M, b, …]` as `[b·M, …]`, micro-batches interleaved: no row leaves its device, and a loss asks for no order."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), tree)


def _difference(a: Embeddings, b: Embeddings) -> Array:
    differences = jax.tree.map(lambda x, y: jnp.abs(x - y).max().astype(jnp.float32), a, b)
    return jnp.stack(jax.tree.leaves(differences)).max()


def _stream(keys: RowKeys, stream: int) -> RowKeys:
    folded: RowKeys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)
    return folded
