"""An NNX module as two pure functions over plain nested dictionaries: the only form in which a model leaves this room.

Parameters and running statistics are dictionaries with string keys, so that path rules, optax, orbax and exporters
need not know Flax. Transform the functions with `jax.jit`, `jax.grad`, `jax.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key

from ecgclip_jax.models.layers import Rngs

Tree = dict[str, Any]
"""A nested dictionary of arrays with string keys."""


class PureModule:
    """`init` and `apply` of the module that `build` constructs; building happens in shapes only."""

    def __init__(self, build: Callable[[Rngs], nnx.Module]) -> None:
        self._build = build
        abstract = nnx.eval_shape(lambda: build(Rngs(jax.random.key(0))))
        self._graph: nnx.GraphDef = nnx.split(abstract, nnx.Param, nnx.BatchStat)[0]

    def init(self, key: Key[Array, ""]) -> tuple[Tree, Tree]:
        """Fresh (parameters, running statistics); jit it with `out_shardings` and nothing is materialised whole."""
        _, params, stats = nnx.split(self._build(Rngs(key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def apply(self, params: Tree, stats: Tree, *args: Any, **kwargs: Any) -> tuple[Any, Tree]:
        """The module called with `args` and `kwargs`, and the running statistics after the call."""
        # copy=True: the module's own variables belong to another trace and may not be written in this one.
        module = nnx.merge(self._graph, params, stats, copy=True)
        output = module(*args, **kwargs)
        return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def parameter_count(params: Tree) -> int:
    """Number of scalars in a parameter tree (abstract arrays count too)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
