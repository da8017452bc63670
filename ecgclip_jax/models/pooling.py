"""Pooling over time: MERL's 1x1 convolution and attention pooling with one learned query token."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ecgclip_jax.models.layers import Linear, Rngs, normal, uniform, zeros


class QueryAttention(nnx.Module):
    """The weights of a multi-head attention (PyTorch's `MultiheadAttention`) that is asked for one query only."""

    def __init__(self, width: int, heads: int, *, rngs: Rngs) -> None:
        # PyTorch draws the three as one Xavier-uniform matrix [3 width, width]; all biases start at 0.
        xavier = uniform(math.sqrt(6 / (4 * width)))
        self.query, self.key, self.value = (
            Linear(width, width, kernel_init=xavier, bias_init=zeros, rngs=rngs) for _ in range(3)
        )
        self.out = Linear(width, width, bias_init=zeros, rngs=rngs)
        self.heads = heads

    def probe(self, query: Float[Array, "width"]) -> Float[Array, "heads width"]:
        """What a token's product with it is the token's score: q·(K t) = (Kᵀq)·t, so no key is ever formed.

        The key's bias adds the same to every token's score, which the softmax removes.
        """
        width = len(query)
        q = self.query(query).reshape(self.heads, -1)
        kernel = self.key.kernel[...].reshape(width, self.heads, -1)
        return jnp.einsum("hd,whd->hw", q, kernel) / math.sqrt(width // self.heads)

    def answer(self, mean_token: Float[Array, "batch heads width"]) -> Float[Array, "batch width"]:
        """The attention's output, from the tokens' weighted means: the value of a mean is the mean of the values."""
        batch, heads, width = mean_token.shape
        kernel = self.value.kernel[...].reshape(width, heads, -1)
        context = jnp.einsum("bhw,whd->bhd", mean_token, kernel).reshape(batch, width)
        return self.out(context + self.value.bias[...])


class Pooled(NamedTuple):
    """A map pooled over time in two ways, float32."""

    attended: Float[Array, "batch width"]
    mean: Float[Array, "batch width"]


class AttentionPool(nnx.Module):
    """MERL's pooling of [batch, time, width_in] to [batch, width] (released code, `utils_builder.py`).

    After a 1x1 convolution to `width`, a learned token queries itself and all time steps; its attention output passes
    a second linear layer. The first position is added to the query token twice, as in the released code: once before
    it joins the steps, once with the table that is added to all of them.
    """

    def __init__(self, steps: int, width: int, heads: int, *, rngs: Rngs) -> None:
        self.query_token = nnx.Param(normal(1.0)(rngs.params(), (width,)))
        self.positions = nnx.Param(normal(1 / width)(rngs.params(), (steps + 1, width)))
        self.attention = QueryAttention(width, heads, rngs=rngs)
        self.projection = Linear(width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time width_in"], narrow: Linear) -> Pooled:
        """The map as `narrow` would make it, pooled; it is linear, so it is applied to means of `x` alone.

        Raises:
            ValueError: another number of steps than the table of positions was made for.
        """
        positions = self.positions[...]
        if x.shape[1] + 1 != positions.shape[0]:
            raise ValueError(
                f"attention pooling was built for {positions.shape[0] - 1} time steps and got {x.shape[1]}: "
                "the signal's length is not the one of the experiment's SignalSpec (`signal.samples`)"
            )
        query = self.query_token[...] + 2 * positions[0]
        probe = self.attention.probe(query)
        offsets = positions[1:] + narrow.bias[...]
        wide_probe = (probe @ narrow.kernel[...].T).astype(x.dtype)
        weights, sums = _attend(x, wide_probe, probe @ query, probe @ offsets.T)
        heads = sums[:, :-1] @ narrow.kernel[...] + weights[:, :, :1] * query + weights[:, :, 1:] @ offsets
        mean = narrow(sums[:, -1] / x.shape[1])
        return Pooled(self.projection(self.attention.answer(heads)), mean)


_Attended = tuple[Float[Array, "batch heads tokens"], Float[Array, "batch rows width_in"]]


@jax.custom_vjp
def _attend(
    x: Float[Array, "batch time width_in"],
    probe: Float[Array, "heads width_in"],
    to_query: Float[Array, "heads"],
    to_offsets: Float[Array, "heads time"],
) -> _Attended:
    """Softmax weights of the query token and of all steps; sums of `x` by each head's weights, and with weights 1.

    Forward and backward each read the map twice, and the gradient of the map is written once, as one product.
    """
    scores = _by_step(jnp.broadcast_to(probe, (len(x), *probe.shape)), x) + to_offsets
    on_query = jnp.broadcast_to(to_query[:, None], (*scores.shape[:2], 1))
    weights = jax.nn.softmax(jnp.concatenate([on_query, scores], axis=-1), axis=-1)
    return weights, _over_steps(_rows(weights, x), x)


def _attend_forward(x: Array, probe: Array, to_query: Array, to_offsets: Array) -> tuple[_Attended, Any]:
    weights, sums = _attend(x, probe, to_query, to_offsets)
    return (weights, sums), (x, probe, weights)


def _attend_backward(kept: tuple[Array, Array, Array], gradients: _Attended) -> tuple[Array, Array, Array, Array]:
    x, probe, weights = kept
    by_weights, by_sums = gradients
    by_sums = by_sums.astype(x.dtype)
    by_weights = by_weights.at[:, :, 1:].add(_by_step(by_sums, x)[:, :-1])
    by_scores = weights * (by_weights - (weights * by_weights).sum(axis=-1, keepdims=True))
    by_steps = by_scores[:, :, 1:].astype(x.dtype)
    along_time = jnp.concatenate([_rows(weights, x), by_steps], axis=1)
    along_width = jnp.concatenate([by_sums, jnp.broadcast_to(probe, (len(x), *probe.shape))], axis=1)
    # Written out rather than as a product of matrices: so few terms are summed where they are read, and never stored.
    outer = (
        along_time[:, row, :, None].astype(jnp.float32) * along_width[:, row, None, :]
        for row in range(along_time.shape[1])
    )
    by_x = sum(outer, start=jnp.zeros((), jnp.float32)).astype(x.dtype)
    by_probe = _over_steps(by_steps, x).sum(axis=0).astype(probe.dtype)
    return by_x, by_probe, by_scores[:, :, 0].sum(axis=0), by_scores[:, :, 1:].sum(axis=0)


_attend.defvjp(_attend_forward, _attend_backward)


def _rows(weights: Float[Array, "batch heads tokens"], x: Array) -> Float[Array, "batch rows time"]:
    on_steps = weights[:, :, 1:].astype(x.dtype)
    return jnp.concatenate([on_steps, jnp.ones_like(on_steps[:, :1])], axis=1)


def _by_step(
    rows: Float[Array, "batch rows width_in"], x: Float[Array, "batch time width_in"]
) -> Float[Array, "batch rows time"]:
    """Products for each ECG by itself: XLA's Triton products find no tiles for one with as few columns as heads."""
    return jnp.einsum("brw,btw->brt", rows, x, preferred_element_type=jnp.float32)


def _over_steps(
    rows: Float[Array, "batch rows time"], x: Float[Array, "batch time width_in"]
) -> Float[Array, "batch rows width_in"]:
    return jnp.einsum("brt,btw->brw", rows, x, preferred_element_type=jnp.float32)
