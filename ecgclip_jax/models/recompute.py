"""Parts of a tower whose backward pass computes them again, each when its gradient has arrived and not before.

`jax.checkpoint` around a whole tower leaves it to the compiler when to compute what again, and XLA for GPUs does all of
it at once, at the height of the memory's use. Around each part it orders them, but holds their gradients back until
each is a single stored array. Here what a part kept waits for its gradient, and the gradient for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Maps = tuple[Float[Array, "batch _ _"], ...]


def run_lean(function: Callable[..., Maps], part: Sequence[nnx.Module], xs: Maps, kept: Sequence[str]) -> Maps:
    """`function(part, *xs)`, of which the backward pass keeps `xs` and what is named `kept` (`layers.kept_as`).

    The part's running statistics move as they would without.
    """
    graph, params, stats = nnx.split(list(part), nnx.Param, nnx.BatchStat)

    def pure(params: Any, stats: Any, *xs: Any) -> tuple[Maps, Any]:
        module = nnx.merge(graph, params, stats, copy=True)
        return function(module, *xs), nnx.state(module, nnx.BatchStat)

    outputs, moved = _late(pure, kept)(params, stats, *xs)
    nnx.update(part, moved)
    return outputs


def _late(function: Callable[..., tuple[Maps, Any]], kept: Sequence[str]) -> Callable[..., tuple[Maps, Any]]:
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    # What keeps the compiler from merging both computations is the barrier below, so JAX's own is not wanted.
    keeping = jax.checkpoint(function, policy=policy, prevent_cse=False)

    def forward(*arguments: Any) -> tuple[tuple[Maps, Any], Any]:
        outputs, backward = jax.vjp(keeping, *arguments)
        return outputs, backward

    def backward(kept_for_it: Any, gradients: tuple[Maps, Any]) -> Any:
        (first, *others), of_stats = gradients
        here = first[:, :1, :1]
        kept_for_it, arrived = lax.optimization_barrier((kept_for_it, here))
        # A sum with zero, because a barrier orders only what somebody reads.
        return kept_for_it(((first + (arrived - here), *others), of_stats))

    late = jax.custom_vjp(function)
    late.defvjp(forward, backward)
    return late
