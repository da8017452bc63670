"""The norm's own backward pass against automatic differentiation of the plain formulas, in each form that is used."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgclip_jax.models.batch_norm import BatchNorm, relu_of_norms
from ecgclip_jax.models.functional import PureModule, Tree

BATCH, TIME, WIDTH, GROUPS = 4, 6, 3, 2


class Sum(nnx.Module):
    """ReLU of the sum of some norms and perhaps a shortcut."""

    def __init__(self, norms: int) -> None:
        for number in range(norms):
            setattr(self, f"norm{number}", BatchNorm(WIDTH, groups=GROUPS))
        self.norms = norms

    def __call__(self, xs: list[jax.Array], shortcut: jax.Array | None) -> jax.Array:
        norms = [getattr(self, f"norm{number}") for number in range(self.norms)]
        return relu_of_norms(norms, xs, shortcut, train=True)


def plain(params: Tree, xs: list[jax.Array], shortcut: jax.Array | None) -> jax.Array:
    """The same, written out: two-pass variance over each group."""
    total: Any = 0 if shortcut is None else shortcut
    for own, x in zip(params.values(), xs, strict=True):
        groups = x.reshape(GROUPS, -1, WIDTH)
        centred = groups - groups.mean(axis=1, keepdims=True)
        normal = centred / jnp.sqrt(jnp.square(centred).mean(axis=1, keepdims=True) + 1e-5)
        total = total + normal.reshape(x.shape) * own["scale"] + own["bias"]
    return jnp.maximum(total, 0)


@pytest.mark.parametrize(("norms", "with_shortcut"), [(1, False), (1, True), (2, False)])
def test_gradients_are_those_of_the_plain_formulas(norms: int, with_shortcut: bool) -> None:
    rng = np.random.default_rng(norms)
    module = PureModule(lambda rngs: Sum(norms))
    params, stats = module.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(1, 0.5, leaf.shape), jnp.float32), params)
    shape = (BATCH, TIME, WIDTH)
    xs = [jnp.asarray(rng.normal(number, 2, shape), jnp.float32) for number in range(norms)]
    shortcut = jnp.asarray(rng.normal(size=shape), jnp.float32) if with_shortcut else None
    weight = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def loss(function: Any, params: Tree, xs: list[jax.Array], shortcut: jax.Array | None) -> jax.Array:
        return (weight * function(params, xs, shortcut)).sum()

    ours, oracle = (
        jax.jit(jax.value_and_grad(lambda *inputs, f=f: loss(f, *inputs), argnums=(0, 1, 2)))(params, xs, shortcut)
        for f in (lambda params, xs, shortcut: module.apply(params, stats, xs, shortcut)[0], plain)
    )
    for mine, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(oracle), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)
