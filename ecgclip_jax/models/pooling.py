"""Pooling over time: MERL's attention pooling with one learned query token."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ecgclip_jax.models.layers import Linear, normal, uniform, zeros


class QueryAttention(nnx.Module):
    """Multi-head attention of one query over a sequence, equal to PyTorch's `MultiheadAttention` on that query."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        # PyTorch draws the three as one Xavier-uniform matrix [3 width, width]; all biases start at 0.
        xavier = uniform(math.sqrt(6 / (4 * width)))
        self.query, self.key, self.value = (
            Linear(width, width, kernel_init=xavier, bias_init=zeros, rngs=rngs) for _ in range(3)
        )
        self.out = Linear(width, width, bias_init=zeros, rngs=rngs)
        self.heads = heads

    def __call__(
        self, query: Float[Array, "batch width"], tokens: Float[Array, "batch tokens width"]
    ) -> Float[Array, "batch width"]:
        """The attention output of `query`, after the output projection."""
        width = query.shape[-1]
        per_head = (self.heads, width // self.heads)
        dtype = tokens.dtype
        # With a single query the keys and values of all tokens need never be formed: q·(K t) = (Kᵀq)·t, and the
        # weighted mean of the values is the value of the weighted mean. The key's bias adds the same to every token's
        # score, which the softmax removes.
        q = self.query(query).reshape(-1, *per_head)
        key_kernel = self.key.kernel[...].astype(dtype).reshape(width, *per_head)
        probe = jnp.einsum("bhd,whd->bhw", q, key_kernel)
        scores = jnp.einsum("bhw,btw->bht", probe, tokens).astype(jnp.float32) / math.sqrt(per_head[1])
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        mean_token = jnp.einsum("bht,btw->bhw", weights, tokens)
        value_kernel = self.value.kernel[...].astype(dtype).reshape(width, *per_head)
        context = jnp.einsum("bhw,whd->bhd", mean_token, value_kernel).reshape(-1, width)
        return self.out(context + self.value.bias[...].astype(dtype))


class AttentionPool(nnx.Module):
    """MERL's pooling of [batch, time, width] to [batch, width] (released code, `utils_builder.py`).

    A learned token queries itself and all time steps; its attention output passes a second linear layer. The first
    position is added to the query token twice, as in the released code: once before it joins the steps, once with the
    table that is added to all of them.
    """

    def __init__(self, steps: int, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.query_token = nnx.Param(normal(1.0)(rngs.params(), (width,)))
        self.positions = nnx.Param(normal(1 / width)(rngs.params(), (steps + 1, width)))
        self.attention = QueryAttention(width, heads, rngs=rngs)
        self.projection = Linear(width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch width"]:
        """[batch, steps, width] → [batch, width].

        Raises:
            ValueError: another number of steps than the table of positions was made for.
        """
        positions = self.positions[...]
        if x.shape[1] + 1 != positions.shape[0]:
            raise ValueError(
                f"attention pooling was built for {positions.shape[0] - 1} time steps and got {x.shape[1]}: "
                "the signal's length is not the one of the experiment's SignalSpec (`signal.samples`)"
            )
        query = (self.query_token[...] + 2 * positions[0]).astype(x.dtype)
        query = jnp.broadcast_to(query, (x.shape[0], 1, x.shape[2]))
        tokens = jnp.concatenate([query, x + positions[1:].astype(x.dtype)], axis=1)
        return self.projection(self.attention(tokens[:, 0], tokens))
