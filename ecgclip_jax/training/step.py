"""One training step as one compiled program: preprocessing, augmentation, towers, loss, update.

The same program runs on one CPU and on a mesh of hosts. Random draws are folded from the experiment's seed, the step
and the row's place in the global batch, so neither the mesh, nor micro-batches, nor a resume changes them.
"""

from __future__ import annotations

from functools import cached_property, partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ecgclip_jax.contracts import Batch
from ecgclip_jax.objectives.reference import Metrics
from ecgclip_jax.parallel.compiler_options import compiler_options
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.signal.operators import SignalOperators, build_operators
from ecgclip_jax.training.gradients import gradients
from ecgclip_jax.training.optimizer import learning_rate
from ecgclip_jax.training.state import TrainingParts, TrainState, Tree, abstract_state, target_branch

UPDATE = "optimizer"
"""Name under which the optimizer's operations stand in the compiled program (`ecgclip profile`)."""


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
            in_shardings=(replicated(mesh), state, batch_sharding(mesh, parts.experiment.memory.micro_batches)),
            out_shardings=(state, replicated(mesh)),
            compiler_options=compiler_options(mesh.devices.flat[0], parts.experiment.run.compiler),
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


def _train_step(
    parts: TrainingParts, operators: SignalOperators, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    found = gradients(parts, operators, state, batch)
    with jax.named_scope(UPDATE):
        updates, opt_state = parts.optimizer.update(found.params, state.opt_state, state.params)
        params: Tree = optax.apply_updates(state.params, updates)
    params = params | {"objective": parts.objective.constrain(params["objective"])}
    grad_norm = optax.tree.norm(found.params)
    metrics = found.metrics | {
        "grad_norm": grad_norm,
        "learning_rate": learning_rate(parts.experiment.optimizer, parts.experiment.run.steps)(state.step),
        "finite": (jnp.isfinite(found.metrics["loss"]) & jnp.isfinite(grad_norm)).astype(jnp.float32),
    }
    stats = dict(found.stats)
    target_stats = stats.pop("target", {})
    target = _moved_target(parts, state, params)
    return TrainState(state.step + 1, params, stats, opt_state, target, target_stats), metrics


def _moved_target(parts: TrainingParts, state: TrainState, params: Tree) -> Tree:
    """The momentum branch after an update: a step of 1 - momentum towards the parameters after it."""
    if not state.target:
        return {}
    momentum = parts.objective.momentum(state.step.astype(jnp.float32) / parts.experiment.run.steps)
    moved: Tree = jax.tree.map(
        lambda old, new: momentum * old + (1 - momentum) * new, state.target, target_branch(parts, params)
    )
    return moved
