"""The one-tap convolution with a stride, whose backward pass is its own, against a product of the samples it sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.models.functional import PureModule
from ecgclip_jax.models.layers import Conv1d


@pytest.mark.parametrize("time", [6, 7])
def test_one_tap_with_a_stride_is_a_product_of_the_samples_seen(time: int) -> None:
    module = PureModule(lambda rngs: Conv1d(3, 5, 1, stride=2, rngs=rngs))
    params, _ = module.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, time, 3))

    def convolved(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sin(module.apply({"kernel": kernel}, {}, x)[0]).sum()

    def product(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sin(x[:, ::2] @ kernel[0]).sum()

    ours, oracle = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params["kernel"], x) for f in (convolved, product))
    for mine, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(oracle), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
