"""Heads: the projections between a tower and the space of a loss.

They belong to the objective (`params/objective/ecg_head` …), which gets them as arguments and so needs no Flax.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from ecgclip_jax.models.batch_norm import BATCH_NORM_EPSILON, group_moments
from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.layers import Linear, Rngs
from ecgclip_jax.spec.encoders import HeadSpec


class CurrentBatchNorm(nnx.Module):
    """BatchNorm of rows by the statistics of the batch itself, over `groups` contiguous groups; none are remembered.

    Self-supervised heads are left behind after training, so nothing would ever read running statistics.
    """

    def __init__(self, width: int, *, groups: int) -> None:
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.groups = groups

    def __call__(self, x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        """Each group to mean 0 and variance 1, then scale and bias."""
        return (standardised(x, self.groups) * self.scale[...] + self.bias[...]).astype(x.dtype)


def standardised(x: Float[Array, "batch width"], groups: int) -> Float[Array, "batch width"]:
    """Each column to mean 0 and variance 1 within each of some contiguous groups of rows, float32."""
    mean, var = group_moments(x[:, None, :], groups)
    rows_per_group = x.shape[0] // groups
    mean, factor = (
        jnp.repeat(statistic, rows_per_group, axis=0) for statistic in (mean, jax.lax.rsqrt(var + BATCH_NORM_EPSILON))
    )
    normal: Array = (x.astype(jnp.float32) - mean) * factor
    return normal


class Projection(nnx.Module):
    """A head of any kind of `HeadSpec`, in float32; the GELU of `mlp` is the exact one."""

    def __init__(
        self, spec: HeadSpec, width_in: int, width_out: int, *, bias: bool, norm_groups: int, rngs: Rngs
    ) -> None:
        self.kind, self.norm_output, self.groups = spec.kind, spec.norm_output, norm_groups
        if spec.kind == "none" and width_in != width_out:
            raise ValueError(
                f"a head of kind 'none' cannot turn {width_in} into {width_out} dimensions: "
                "use 'linear' or 'mlp', or make the widths equal"
            )
        if spec.kind == "linear":
            self.linear = Linear(width_in, width_out, bias=bias, rngs=rngs)
        elif spec.kind in ("mlp", "mlp_norm"):
            self.linear1 = Linear(width_in, spec.hidden, bias=bias, rngs=rngs)
            self.linear2 = Linear(spec.hidden, width_out, bias=bias, rngs=rngs)
        if spec.kind == "mlp_norm":
            self.norm = CurrentBatchNorm(spec.hidden, groups=norm_groups)

    def __call__(self, x: Float[Array, "batch width_in"]) -> Float[Array, "batch width_out"]:
        """[batch, width_in] → [batch, width_out]."""
        if self.kind == "linear":
            return self.linear(x)
        if self.kind == "mlp":
            return self.linear2(jax.nn.gelu(self.linear1(x), approximate=False))
        if self.kind == "mlp_norm":
            out = self.linear2(jax.nn.relu(self.norm(self.linear1(x))))
            return standardised(out, self.groups).astype(x.dtype) if self.norm_output else out
        return x


class Head:
    """A projection as two pure functions; a head of kind `none` has an empty parameter tree.

    `norm_groups` is the number of contiguous groups of rows over which `mlp_norm` takes its statistics.

    Raises:
        ValueError: kind `none` between different widths.
    """

    def __init__(
        self, spec: HeadSpec, width_in: int, width_out: int, bias: bool = True, *, norm_groups: int = 1
    ) -> None:
        self.width_in, self.width_out = width_in, width_out
        self._module = PureModule(
            lambda rngs: Projection(spec, width_in, width_out, bias=bias, norm_groups=norm_groups, rngs=rngs)
        )

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        return self._module.init(key)[0]

    def apply(self, params: Tree, x: Float[Array, "batch width_in"]) -> Float[Array, "batch width_out"]:
        """`x` projected."""
        projected: Array = self._module.apply(params, {}, x)[0]
        return projected
