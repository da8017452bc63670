"""The compiled programs of fine-tuning, shared by all fine-tunes of an architecture: an update, and two forward passes.

Whatever differs between fine-tunes (weights, learning rate, decay, labels) is an argument: nothing is compiled again
for another draw, seed or rate. The head reads the mean of the trunk over time, as in the released code of MERL and of
ECGCLIP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.evaluation.protocols.tuning_data import on_device
from ecgclip_jax.models.build import ecg_tower
from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.rules import match_rules
from ecgclip_jax.spec.encoders import EcgEncoderSpec
from ecgclip_jax.spec.experiment import Experiment, MeshSpec
from ecgclip_jax.training.optimizer import DECAY_RULES


class TuningState(NamedTuple):
    """All that changes: `params` are `{"ecg": trunk, "head": {kernel, bias}}`."""

    params: Tree
    stats: Tree
    moments: Any


class Rates(NamedTuple):
    """What an update's size depends on; float32 scalars."""

    encoder: Array
    head: Array
    weight_decay: Array


@dataclass(frozen=True, eq=False)
class TuningProgram:
    """The functions of one trunk on the devices that a batch divides by."""

    parts: frozenset[str]
    """Names of the trunk's parameters in the encoder's tree."""
    width: int
    """Of the features that the head reads."""
    mesh: Mesh
    step: Any
    """(state, ecg, positive, share, rates) → (state, loss); the state's buffers are used up."""
    settle: Any
    """(trunk, stats, ecg) → stats, moved by one batch as in training."""
    features: Any
    """(trunk, stats, ecg) → [batch, width], as in use."""

    def place(self, tree: Any) -> Any:
        """Host arrays on every device; a state is given away to `step`, so it is copied."""
        return jax.device_put(jax.tree.map(np.array, tree), replicated(self.mesh))

    def trunk(self, params: Tree) -> Tree:
        """The trunk's part of an encoder's parameters."""
        return {name: part for name, part in params.items() if name in self.parts}

    def start(self, params: Tree, stats: Tree, head: Tree) -> TuningState:
        """The state before the first update, from an encoder's own trees (pooling is left behind)."""
        both = {"ecg": self.trunk(params), "head": head}
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(_moments().init, both))
        return TuningState(*self.place((both, dict(stats), zeros)))


def tuning_program(experiment: Experiment, batch: int) -> TuningProgram:
    """The programs for an experiment's encoder; the same object for equal architectures and batches."""
    return _program(experiment.ecg_encoder.trunk(), experiment.encoder_leads, experiment.signal.samples, batch)


@lru_cache(maxsize=8)
def _program(spec: EcgEncoderSpec, leads: int, samples: int, batch: int) -> TuningProgram:
    trunk = PureModule(lambda rngs: ecg_tower(spec, leads=leads, samples=samples, rngs=rngs))
    devices = jax.local_devices()
    mesh = build_mesh(MeshSpec(), devices[: math.gcd(batch, len(devices))])
    everywhere, rows = replicated(mesh), batch_sharding(mesh)

    def features_of(params: Tree, stats: Tree, ecg: EcgInput, train: bool) -> tuple[Array, Tree]:
        output, moved = trunk.apply(params, stats, on_device(ecg), train=train)
        return output.features, moved

    def step(
        state: TuningState,
        ecg: EcgInput,
        positive: Float[Array, "batch labels"],
        share: Float[Array, "batch labels"],
        rates: Rates,
    ) -> tuple[TuningState, Float[Array, ""]]:
        def loss_of(params: Tree) -> tuple[Array, Tree]:
            seen, moved = features_of(params["ecg"], state.stats, ecg, train=True)
            logits = seen @ params["head"]["kernel"] + params["head"]["bias"]
            return jnp.mean(share * (jax.nn.softplus(logits) - positive * logits)), moved

        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        directions, moments = _moments().update(gradients, state.moments)
        params = {name: _moved(rate, rates.weight_decay, state.params[name], directions[name])
                  for name, rate in (("ecg", rates.encoder), ("head", rates.head))}  # fmt: skip
        return TuningState(params, stats, moments), loss

    def settle(params: Tree, stats: Tree, ecg: EcgInput) -> Tree:
        return features_of(params, stats, ecg, train=True)[1]

    def features(params: Tree, stats: Tree, ecg: EcgInput) -> Float[Array, "batch width"]:
        return features_of(params, stats, ecg, train=False)[0]

    return TuningProgram(
        frozenset(jax.eval_shape(trunk.init, jax.random.key(0))[0]),
        spec.feature_width,
        mesh,
        jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(everywhere, rows, rows, rows, everywhere),
            out_shardings=(everywhere, everywhere),
        ),
        jax.jit(settle, in_shardings=(everywhere, everywhere, rows), out_shardings=everywhere),
        jax.jit(features, in_shardings=(everywhere, everywhere, rows), out_shardings=rows),
    )


def _moments() -> optax.GradientTransformation:
    """Adam's, as in PyTorch: 0.9, 0.999, 1e-8."""
    return optax.scale_by_adam()


def _moved(rate: Array, weight_decay: Array, params: Tree, directions: Tree) -> Tree:
    """AdamW's update; decay pulls on what it pulls on in pre-training."""
    decays = match_rules(DECAY_RULES, params, what="weight decay rules")
    moved: Tree = jax.tree.map(
        lambda p, d, decayed: p - rate * (d + (weight_decay * p if decayed else 0.0)), params, directions, decays
    )
    return moved
