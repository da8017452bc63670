"""The few layers the towers are made of, with PyTorch's default initialisation.

They are written here rather than taken from `flax.nnx` for three reasons: MERL and ECGCLIP start from PyTorch's
default initialisers, BatchNorm has to count its statistics over groups of the *global* batch, and dropout must depend
on the record and not on where the record lies in the batch or on which device.

Parameters are always float32; a layer computes in the dtype of its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from ecgclip_jax.contracts import RowKeys

CONVOLUTION_OUTPUT, BLOCK_OUTPUT, NORM_MOMENTS = "convolution_output", "block_output", "norm_moments"
"""Names of intermediate results that a rematerialisation policy may keep (`jax.ad_checkpoint`)."""


def kept_as(name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, under a name by which a rematerialisation policy may keep it."""
    named: Array = checkpoint_name(x, name)
    return named


class Rngs:
    """A key for each parameter, in the order in which layers are made: those that `nnx.Rngs(params=key)` gives.

    It counts in Python. Flax's counter is a variable, and to write one of those in a traced function asks its tracer
    for a sharding, which it refuses in words that quote the whole program so far: half of the time to set up a tower.
    """

    def __init__(self, key: Key[Array, ""]) -> None:
        self._key = key
        self._given = 0

    def params(self) -> Key[Array, ""]:
        """The next one."""
        self._given += 1
        return jax.random.fold_in(self._key, self._given - 1)


Initializer = Callable[[Array, tuple[int, ...]], Float[Array, "..."]]
"""Float32 initial values from a key and a shape."""


def uniform(bound: float) -> Initializer:
    """Uniform in [-bound, bound)."""
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def normal(std: float) -> Initializer:
    """Normal around 0."""
    return lambda key, shape: std * jax.random.normal(key, shape, jnp.float32)


def zeros(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Zeros; an `Initializer` too."""
    return jnp.zeros(shape, jnp.float32)


class Linear(nnx.Module):
    """x W + b on the last axis; by default W and b start uniform within ±1/√fan_in (PyTorch: Kaiming with a = √5)."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        bias: bool = True,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: Rngs,
    ) -> None:
        default = uniform(1 / math.sqrt(width_in))
        self.kernel = nnx.Param((kernel_init or default)(rngs.params(), (width_in, width_out)))
        self.has_bias = bias
        if bias:
            self.bias = nnx.Param((bias_init or default)(rngs.params(), (width_out,)))

    def __call__(self, x: Float[Array, "*rows width_in"]) -> Float[Array, "*rows width_out"]:
        """[…, width_in] → […, width_out]."""
        y = x @ self.kernel[...].astype(x.dtype)
        return y + self.bias[...].astype(x.dtype) if self.has_bias else y


class Conv1d(nnx.Module):
    """1-D convolution of [batch, time, channel] with an odd kernel [tap, in, out] and kernel // 2 zeros at each end.

    The padding is explicit because XLA's `SAME` puts the zeros elsewhere than PyTorch when the stride is 2.
    """

    def __init__(self, width_in: int, width_out: int, kernel_size: int, *, stride: int = 1, rngs: Rngs) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"Conv1d: kernel_size must be odd, got {kernel_size}")
        init = uniform(1 / math.sqrt(width_in * kernel_size))
        self.kernel = nnx.Param(init(rngs.params(), (kernel_size, width_in, width_out)))
        self.stride = stride

    def __call__(self, x: Float[Array, "batch time width_in"]) -> Float[Array, "batch steps width_out"]:
        """[batch, time, width_in] → [batch, ceil(time / stride), width_out]."""
        convolve = _thinned if self.kernel.shape[0] == 1 < self.stride else _convolved
        return convolve(self.stride, x, self.kernel[...].astype(x.dtype))


def _convolved(
    stride: int, x: Float[Array, "batch time width_in"], kernel: Float[Array, "tap width_in width_out"]
) -> Float[Array, "batch steps width_out"]:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC"))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _thinned(
    stride: int, x: Float[Array, "batch time width_in"], kernel: Float[Array, "1 width_in width_out"]
) -> Float[Array, "batch steps width_out"]:
    """A convolution of one tap, most samples of which it never looks at: their gradient is zero.

    Except on TPUs, which fuse the whole, the gradient is made of the samples looked at and spread where it is read.
    """
    return _convolved(stride, x, kernel)


def _thinned_forward(stride: int, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(stride, x, kernel), (x, kernel)


def _thinned_backward(stride: int, kept: tuple[Array, Array], by_y: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (by_kernel,) = jax.linear_transpose(lambda kernel: _convolved(stride, x, kernel), kernel)(by_y)

    def spread(by_y: Array) -> Array:
        seen = _convolved(1, by_y, kernel.swapaxes(1, 2))
        unseen_at_the_end = (x.shape[1] - 1) % stride
        return lax.pad(seen, jnp.zeros((), x.dtype), [(0, 0, 0), (0, unseen_at_the_end, stride - 1), (0, 0, 0)])

    def whole(by_y: Array) -> Array:
        by_x: Array = jax.linear_transpose(lambda x: _convolved(stride, x, kernel), x)(by_y)[0]
        return by_x

    return lax.platform_dependent(by_y, tpu=whole, default=spread), by_kernel


_thinned.defvjp(_thinned_forward, _thinned_backward)


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis, statistics in float32."""

    def __init__(self, width: int, *, epsilon: float) -> None:
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        """Each row to mean 0 and variance 1, then scale and bias."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        factor = lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.epsilon)
        return (centred * factor * self.scale[...] + self.bias[...]).astype(x.dtype)


class Embedding(nnx.Module):
    """Rows of a table by number."""

    def __init__(self, rows: int, width: int, *, std: float, rngs: Rngs) -> None:
        self.embedding = nnx.Param(normal(std)(rngs.params(), (rows, width)))

    def __call__(self, index: Int[Array, "*rows"]) -> Float[Array, "*rows width"]:
        """The rows named by `index`."""
        return jnp.take(self.embedding[...], index, axis=0)


def row_dropout(
    x: Float[Array, "batch ..."], rate: float, keys: RowKeys | None, site: int
) -> Float[Array, "batch ..."]:
    """Inverted dropout whose mask for a row depends on that row's key and on `site` alone; no keys, no dropout."""
    if keys is None or rate == 0:
        return x

    def drop(key: Array, row: Array) -> Array:
        keep = jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate, row.shape)
        return jnp.where(keep, row / (1 - rate), 0)

    return jax.vmap(drop)(keys, x)
