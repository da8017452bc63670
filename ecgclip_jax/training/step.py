"""One training step as one compiled program: preprocessing, augmentation, towers, loss, update.

The same program runs on one CPU and on a mesh of hosts. Random draws are folded from the experiment's seed, the step
and the row's place in the global batch, so neither the mesh nor a resume changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ecgclip_jax.contracts import Batch, RowKeys
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.parallel.mesh import MESH_AXES
from ecgclip_jax.signal.operators import SignalOperators, build_operators
from ecgclip_jax.signal.preprocessing import prepare_input
from ecgclip_jax.training.optimizer import frozen_mask, learning_rate
from ecgclip_jax.training.state import TrainingParts, TrainState, Tree, abstract_state, step_key

_MODEL_STREAM, _AUGMENT_STREAM = range(2)


class TrainStep:
    """`step(state, batch) -> (state, metrics)`, compiled once for a mesh; the state given is donated.

    Metrics are float32 scalars on the device: those of the objective, `grad_norm`, `learning_rate`, and `finite`,
    which is 1 while loss and gradients are finite.
    """

    def __init__(self, parts: TrainingParts, mesh: Mesh) -> None:
        self._mesh, self._signal = mesh, parts.experiment.signal
        state = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(parts, mesh))
        self.jitted = jax.jit(
            partial(_train_step, parts),
            donate_argnums=1,
            in_shardings=(replicated(mesh), state, batch_sharding(mesh)),
            out_shardings=(state, replicated(mesh)),
        )

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update on a global batch (`parallel.host.to_global`); nothing moves between host and device."""
        operators = self._operators
        with jax.set_mesh(self._mesh), jax.transfer_guard("disallow"):
            updated: tuple[TrainState, Metrics] = self.jitted(operators, state, batch)
        return updated

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The step for shapes alone (`abstract_state` and a batch of `jax.ShapeDtypeStruct`): the mesh's devices may be
        described ones that this machine does not have (`parallel.targets`)."""
        sharding = replicated(self._mesh)
        operators = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), build_operators(self._signal)
        )
        with jax.set_mesh(self._mesh):
            return self.jitted.lower(operators, state, batch)

    @cached_property
    def _operators(self) -> SignalOperators:
        # The filters' matrices are an argument: as constants they would be copied into the program.
        placed: SignalOperators = jax.device_put(build_operators(self._signal), replicated(self._mesh))
        return placed


def row_keys(key: jax.Array, rows: int) -> RowKeys:
    """One key per row of the global batch."""
    keys: RowKeys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rows))
    return keys


def _train_step(
    parts: TrainingParts, operators: SignalOperators, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    loss = _loss(parts, operators, state, batch)
    (_, (stats, metrics)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = parts.optimizer.update(gradients, state.opt_state, state.params)
    params: Tree = optax.apply_updates(state.params, updates)
    params = params | {"objective": parts.objective.constrain(params["objective"])}
    grad_norm = optax.tree.norm(gradients)
    metrics = metrics | {
        "grad_norm": grad_norm,
        "learning_rate": learning_rate(parts.experiment.optimizer, parts.experiment.run.steps)(state.step),
        "finite": (jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)).astype(jnp.float32),
    }
    return TrainState(state.step + 1, params, stats, opt_state), metrics


def _loss(
    parts: TrainingParts, operators: SignalOperators, state: TrainState, batch: Batch
) -> Callable[[Tree], tuple[Scalar, tuple[Tree, Metrics]]]:
    """The loss as a function of all parameters; frozen ones stop the gradient, so their backward pass vanishes."""
    experiment = parts.experiment
    keys = row_keys(step_key(experiment, state.step), batch.ecg_uv.shape[0])
    model_keys, augment_keys = (_stream(keys, s) for s in (_MODEL_STREAM, _AUGMENT_STREAM))
    ecg = prepare_input(
        experiment.signal,
        experiment.augment,
        operators,
        batch.ecg_uv,
        batch.extras,
        batch.extras_present,
        augment_keys,
    )
    frozen = frozen_mask(experiment.optimizer, state.params)

    def loss(params: Tree) -> tuple[Scalar, tuple[Tree, Metrics]]:
        params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, frozen)
        embeddings, stats = parts.objective.embed(
            parts.towers, parts.heads, params, state.batch_stats, (ecg,), batch, train=True, keys=model_keys
        )
        value, metrics = parts.objective.loss(embeddings, params["objective"], batch, MESH_AXES)
        return value, (stats, metrics)

    return loss


def _stream(keys: RowKeys, stream: int) -> RowKeys:
    folded: RowKeys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)
    return folded
