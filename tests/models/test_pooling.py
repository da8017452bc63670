"""Attention pooling against the textbook form, in which every key and value is formed."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ecgclip_jax.models.layers import Linear, Rngs
from ecgclip_jax.models.pooling import AttentionPool

BATCH, STEPS, WIDTH_IN, WIDTH, HEADS = 3, 7, 10, 8, 2


def textbook(pool: AttentionPool, narrow: Linear, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Attended and mean pooling of the map that `narrow` makes."""
    steps, positions, attention = narrow(x), pool.positions[...], pool.attention
    query_token = jnp.broadcast_to(pool.query_token[...] + 2 * positions[0], (len(x), 1, WIDTH))
    tokens = jnp.concatenate([query_token, steps + positions[1:]], axis=1)
    query = attention.query(tokens[:, 0]).reshape(BATCH, HEADS, -1)
    key, value = (layer(tokens).reshape(BATCH, STEPS + 1, HEADS, -1) for layer in (attention.key, attention.value))
    scores = jnp.einsum("bhd,bthd->bht", query, key) / math.sqrt(WIDTH // HEADS)
    context = jnp.einsum("bht,bthd->bhd", jax.nn.softmax(scores, axis=-1), value).reshape(BATCH, WIDTH)
    return pool.projection(attention.out(context)), steps.mean(axis=1)


def test_values_and_gradients_are_those_of_the_textbook() -> None:
    rngs = Rngs(jax.random.key(0))
    layers = (AttentionPool(STEPS, WIDTH, HEADS, rngs=rngs), Linear(WIDTH_IN, WIDTH, rngs=rngs))
    graph, weights = nnx.split(layers)
    x = jax.random.normal(jax.random.key(1), (BATCH, STEPS, WIDTH_IN))

    def loss(weights: Any, x: jax.Array, form: Any) -> jax.Array:
        attended, mean = form(*nnx.merge(graph, weights), x)
        return jnp.sin(3 * attended).sum() + jnp.cos(2 * mean).sum()

    ours, oracle = (
        jax.jit(jax.value_and_grad(lambda *inputs, f=form: loss(*inputs, f), argnums=(0, 1)))(weights, x)
        for form in (lambda pool, narrow, x: pool(x, narrow), textbook)
    )
    for mine, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(oracle), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=2e-6)
