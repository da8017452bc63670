"""Heads: the projections between a tower and the space of a loss.

They belong to the objective (`params/objective/ecg_head` …), which gets them as arguments and so needs no Flax.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.layers import Linear
from ecgclip_jax.spec.encoders import HeadSpec


class Projection(nnx.Module):
    """Nothing, a linear layer, or MERL's linear - exact GELU - linear, in float32."""

    def __init__(self, spec: HeadSpec, width_in: int, width_out: int, *, bias: bool, rngs: nnx.Rngs) -> None:
        self.kind = spec.kind
        if spec.kind == "none" and width_in != width_out:
            raise ValueError(
                f"a head of kind 'none' cannot turn {width_in} into {width_out} dimensions: "
                "use 'linear' or 'mlp', or make the widths equal"
            )
        if spec.kind == "linear":
            self.linear = Linear(width_in, width_out, bias=bias, rngs=rngs)
        elif spec.kind == "mlp":
            self.linear1 = Linear(width_in, spec.hidden, bias=bias, rngs=rngs)
            self.linear2 = Linear(spec.hidden, width_out, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "batch width_in"]) -> Float[Array, "batch width_out"]:
        """[batch, width_in] → [batch, width_out]."""
        if self.kind == "linear":
            return self.linear(x)
        if self.kind == "mlp":
            return self.linear2(jax.nn.gelu(self.linear1(x), approximate=False))
        return x


class Head:
    """A projection as two pure functions; a head of kind `none` has an empty parameter tree.

    Raises:
        ValueError: kind `none` between different widths.
    """

    def __init__(self, spec: HeadSpec, width_in: int, width_out: int, bias: bool = True) -> None:
        self.width_in, self.width_out = width_in, width_out
        self._module = PureModule(lambda rngs: Projection(spec, width_in, width_out, bias=bias, rngs=rngs))

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        return self._module.init(key)[0]

    def apply(self, params: Tree, x: Float[Array, "batch width_in"]) -> Float[Array, "batch width_out"]:
        """`x` projected."""
        projected: Array = self._module.apply(params, {}, x)[0]
        return projected
