"""All that changes during training, as one pytree, and how it comes into being on a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.heads import Head
from ecgclip_jax.models.tag_attention import TagAttention
from ecgclip_jax.objectives.build import build_objective
from ecgclip_jax.objectives.interfaces import HeadNeeds, Heads, Objective, TagAttentionNeed
from ecgclip_jax.parallel.rules import infer_shardings
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.training.optimizer import build_optimizer

Tree = dict[str, Any]
_INIT_STREAM, _STEP_STREAM = range(2)
"""Which stream of the experiment's seed: initialisation, or the steps."""


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """`step` updates have been made; it is also the number of the next global batch.

    There is no generator state: every draw is a function of the experiment's seed, the step and the row.
    `target` is the momentum branch of an objective that has one: `{"ecg": …, "objective": {head: …}}`, with running
    statistics of its own; empty otherwise.
    """

    step: Int[Array, ""]
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState
    target: Tree = field(default_factory=dict)
    target_stats: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingParts:
    """The functions of an experiment; with a `TrainState` they are a model in training."""

    experiment: Experiment
    towers: Towers
    heads: Heads
    objective: Objective
    optimizer: optax.GradientTransformation
    model_shapes: tuple[Tree, Tree]
    """Parameters and running statistics as `jax.ShapeDtypeStruct`s: tracing an initialisation is most of a start."""


def build_parts(experiment: Experiment, vocab_size: int, towers: Towers | None = None) -> TrainingParts:
    """Towers, heads, objective and optimizer of `experiment` for a tokenizer of `vocab_size` tokens.

    `towers` stand in for the experiment's own.

    Raises:
        RuleError: freezing rules that match no parameter.
    """
    towers = towers or build_towers(experiment, vocab_size)
    objective = build_objective(experiment.objective)
    heads = _build_heads(objective.heads(towers), experiment)
    shapes = jax.eval_shape(partial(_init_model, towers, heads, objective), jax.random.key(0))
    optimizer = build_optimizer(experiment.optimizer, experiment.run.steps, shapes[0])
    return TrainingParts(experiment, towers, heads, objective, optimizer, shapes)


def _build_heads(needs: HeadNeeds, experiment: Experiment) -> Heads:
    """The heads that an objective needs; their BatchNorm has the groups of the ECG tower's."""
    groups = experiment.ecg_encoder.norm_groups // experiment.memory.micro_batches
    return {
        name: TagAttention(**need._asdict())
        if isinstance(need, TagAttentionNeed)
        else Head(**need._asdict(), norm_groups=groups)
        for name, need in needs.items()
    }


def abstract_state(parts: TrainingParts, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(partial(_first_state, parts), *parts.model_shapes)
    placed: TrainState = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        infer_shardings(mesh, shapes),
    )
    return placed


def init_state(parts: TrainingParts, mesh: Mesh) -> TrainState:
    """The state before the first step, each array born where it lies; weights from files replace random ones."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(parts, mesh))
    # The key is an argument: with a constant one the compiler would fold, and so slowly compute, every draw itself.
    # It runs once, so on a CPU compiling it well costs three times what it saves.
    options = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else None
    init = jax.jit(lambda key: _init_state(parts, key), out_shardings=shardings, compiler_options=options)
    state: TrainState = init(_init_key(parts.experiment))
    loaded = parts.towers.pretrained()
    placed = {name: jax.device_put(part, shardings.params[name]) for name, part in loaded.items()}
    return replace(state, params=state.params | placed)


def step_key(experiment: Experiment, step: Int[Array, ""]) -> jax.Array:
    """The random key of one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(experiment.seed), _STEP_STREAM), step)


def _init_key(experiment: Experiment) -> jax.Array:
    return jax.random.fold_in(jax.random.key(experiment.seed), _INIT_STREAM)


def target_branch(parts: TrainingParts, params: Tree) -> Tree:
    """The part of `params` of which the objective keeps a momentum copy; empty for one that keeps none."""
    if not parts.objective.spec.has_target:
        return {}
    heads = {name: params["objective"][name] for name in parts.objective.target_heads}
    return {"ecg": params["ecg"], "objective": heads}


def _init_state(parts: TrainingParts, key: jax.Array) -> TrainState:
    return _first_state(parts, *_init_model(parts.towers, parts.heads, parts.objective, key))


def _first_state(parts: TrainingParts, params: Tree, stats: Tree) -> TrainState:
    target = jax.tree.map(jnp.copy, target_branch(parts, params))
    target_stats = jax.tree.map(jnp.copy, stats) if target else {}
    return TrainState(jnp.zeros((), jnp.int32), params, stats, parts.optimizer.init(params), target, target_stats)


def _init_model(towers: Towers, heads: Heads, objective: Objective, key: jax.Array) -> tuple[Tree, Tree]:
    towers_key, objective_key = jax.random.split(key)
    params, stats = towers.init(towers_key)
    return params | {"objective": objective.constrain(objective.init(objective_key, heads))}, stats
