"""Path rules: ordered (regular expression, value) pairs decide per parameter, and nothing is decided by accident.

The first expression that is found in a leaf's path wins. Every leaf must be covered and every rule must be the
winner somewhere: a rule that matches nothing is a typo or a renamed layer, and both are errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ecgclip_jax.spec.errors import UserError

Value = TypeVar("Value")
Rules = Sequence[tuple[str, Value]]
Placement = Literal["replicate", "fsdp"] | PartitionSpec
"""How an array lies on the mesh: whole on every device, split over `fsdp` where that pays, or as given."""

FSDP_MIN_ELEMENTS = 2**16
"""Smaller arrays stay whole: gathering them would cost more than their memory is worth."""

DEFAULT_PLACEMENT: tuple[tuple[str, Placement], ...] = ((".*", "fsdp"),)


class RuleError(UserError):
    """Rules that do not cover a tree, or that match nothing; the message names both sides."""


def leaf_paths(tree: Any) -> list[str]:
    """Path of each leaf as `ecg/stem/conv/kernel`, in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def match_rules(rules: Rules[Value], tree: Any, *, what: str) -> Any:
    """A tree of the values that the rules give each leaf (first match wins, anywhere in the path).

    `what` names the rules in an error, for example `optimizer.frozen`.

    Raises:
        RuleError: a leaf that no rule matches, or a rule that is the first match of no leaf.
    """
    paths = leaf_paths(tree)
    winners = [next((i for i, (pattern, _) in enumerate(rules) if re.search(pattern, path)), None) for path in paths]
    uncovered = [path for path, winner in zip(paths, winners, strict=True) if winner is None]
    if uncovered:
        raise RuleError(f"{what}: no rule covers {_some(uncovered)}; add a rule or a last one for '.*'")
    unused = [pattern for i, (pattern, _) in enumerate(rules) if i not in winners]
    if unused:
        raise RuleError(
            f"{what}: {_some([repr(p) for p in unused])} is the first match of no parameter; paths are {_some(paths)}"
        )
    values = [rules[i][1] for i in winners if i is not None]
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def infer_shardings(mesh: Mesh, shapes: Any, rules: Rules[Placement] = DEFAULT_PLACEMENT) -> Any:
    """A `NamedSharding` per leaf of a tree of shapes (`jax.eval_shape`), so that nothing is ever built whole.

    Optimizer moments repeat the path and the shape of their parameter, so they lie where it lies.

    Raises:
        RuleError: as `match_rules`, or a given `PartitionSpec` that does not fit the array.
    """
    placements = jax.tree.leaves(match_rules(rules, shapes, what="sharding rules"), is_leaf=_is_placement)
    leaves, structure = jax.tree.flatten(shapes)
    shardings = [
        NamedSharding(mesh, _partition(placement, leaf.shape, mesh, path))
        for placement, leaf, path in zip(placements, leaves, leaf_paths(shapes), strict=True)
    ]
    return jax.tree.unflatten(structure, shardings)


def _is_placement(value: Any) -> bool:
    return isinstance(value, str | PartitionSpec)


def _partition(placement: Placement, shape: tuple[int, ...], mesh: Mesh, path: str) -> PartitionSpec:
    if placement == "replicate":
        return PartitionSpec()
    if placement == "fsdp":
        return _fsdp(shape, mesh.shape["fsdp"])
    assert isinstance(placement, PartitionSpec)
    for size, names in zip(shape, placement, strict=False):
        axes = (names,) if isinstance(names, str) else names or ()
        devices = 1
        for name in axes:
            devices *= mesh.shape[name]
        if size % devices:
            raise RuleError(f"sharding rules: {path} of shape {shape} does not divide as {placement} on {mesh.shape}")
    if len(placement) > len(shape):
        raise RuleError(f"sharding rules: {path} of shape {shape} has fewer axes than {placement}")
    return placement


def _fsdp(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """The largest dimension that divides; of equals the last, which is the channels that a layer puts out."""
    elements = 1
    for size in shape:
        elements *= size
    divisible = [d for d, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or elements < FSDP_MIN_ELEMENTS or not divisible:
        return PartitionSpec()
    chosen = max(divisible, key=lambda d: (shape[d], d))
    return PartitionSpec(*(None,) * chosen, "fsdp")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
