"""The losses against hand computation, and the sharded versions against the reference on 1, 2 and 8 devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ecgclip_jax.objectives import reference, sharded

BATCH, DIM = 16, 8
AXES = ("data", "fsdp")
LOSSES = ("infonce_sum", "infonce_mean", "sigmoid")
MASKS = ("none", "groups_and_invalid")


def make_mesh(data: int, fsdp: int) -> jax.sharding.Mesh:
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp), AXES, devices=devices, axis_types=(AxisType.Auto,) * 2)


def normalised(rng: np.random.Generator, dtype: type) -> np.ndarray:
    x = rng.normal(size=(BATCH, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


def make_arguments(mask: str, dtype: type) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Differentiable leaves, group ids and validity."""
    rng = np.random.default_rng(0)
    leaves = {"ecg": normalised(rng, dtype), "text": normalised(rng, dtype)}
    scalars = {"scale": np.asarray(1 / 0.07, dtype), "bias": np.asarray(-3.0, dtype)}
    n_groups = 0 if mask == "none" else 2
    groups = rng.integers(0, 12, size=(BATCH, n_groups)).astype(np.int32)
    valid = np.ones(BATCH, bool)
    valid[[3, 11]] = mask == "none"
    return jax.tree.map(jnp.asarray, leaves | scalars), jnp.asarray(groups), jnp.asarray(valid)


def call(name: str, leaves: dict[str, jax.Array], groups: jax.Array, valid: jax.Array, axes: tuple[str, ...] = ()):
    """One of the losses, sharded where axes are given."""
    module = sharded if axes else reference
    where = {"axes": axes} if axes else {}
    ecg, text, scale, bias = (leaves[k] for k in ("ecg", "text", "scale", "bias"))
    if name == "sigmoid":
        return module.sigmoid(ecg, text, scale, bias, groups, valid, **where)
    direction = name.removeprefix("infonce_")
    return module.infonce(ecg, text, scale, groups, valid, direction=direction, **where)


def assert_same(found, expected, relative: float) -> None:
    """Norm-relative agreement of every leaf."""
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= relative * max(np.linalg.norm(b), 1e-12), (path, a, b)


def all_losses(axes: tuple[str, ...]) -> Callable:
    """Every loss with metrics and gradients, for every mask, in one compilation."""

    def compute(leaves, masks):
        return {
            (name, i): jax.value_and_grad(partial(call, name, axes=axes), has_aux=True)(leaves, *mask)
            for name in LOSSES
            for i, mask in enumerate(masks)
        }

    return jax.jit(compute)


@cache
def reference_results(dtype: type):
    leaves, masks = all_arguments(dtype)
    return jax.device_get(all_losses(())(leaves, masks))


def all_arguments(dtype: type):
    made = [make_arguments(mask, dtype) for mask in MASKS]
    return made[0][0], [(groups, valid) for _, groups, valid in made]


@pytest.mark.parametrize("mesh_shape", [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize(("dtype", "relative"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_sharded_equals_reference(dtype: type, relative: float, mesh_shape: tuple[int, int]) -> None:
    """Value, metrics and every gradient, with and without masks."""
    mesh = make_mesh(*mesh_shape)
    rows = NamedSharding(mesh, PartitionSpec(AXES))
    with jax.enable_x64(dtype is np.float64), jax.set_mesh(mesh):
        leaves, masks = all_arguments(dtype)
        placed = leaves | {k: jax.device_put(leaves[k], rows) for k in ("ecg", "text")}
        found = all_losses(AXES)(placed, jax.device_put(masks, rows))
        expected = reference_results(dtype)
    assert_same(found, expected, relative)
    assert all(gradients["ecg"].dtype == dtype for _, gradients in found.values())


@pytest.mark.parametrize("name", LOSSES)
def test_value_by_hand(name: str) -> None:
    """A slow double loop over pairs in numpy."""
    leaves, groups, valid = make_arguments("groups_and_invalid", np.float32)
    ecg, text, scale, bias = (np.asarray(leaves[k], np.float64) for k in ("ecg", "text", "scale", "bias"))
    group_ids, is_valid = np.asarray(groups), np.asarray(valid)
    total = 0.0
    for i in range(BATCH):
        if not is_valid[i]:
            continue
        others = [j for j in range(BATCH) if j != i and is_valid[j] and not (group_ids[i] == group_ids[j]).any()]
        if name == "sigmoid":
            total += np.log1p(np.exp(-(scale * ecg[i] @ text[i] + bias)))
            total += sum(np.log1p(np.exp(scale * ecg[i] @ text[j] + bias)) for j in others)
        else:
            positive = np.exp(scale * ecg[i] @ text[i])
            row = positive + sum(np.exp(scale * ecg[i] @ text[j]) for j in others)
            column = positive + sum(np.exp(scale * ecg[j] @ text[i]) for j in others)
            total += (-np.log(positive / row) - np.log(positive / column)) / (2 if name == "infonce_mean" else 1)
    loss, _ = call(name, leaves, groups, valid)
    assert float(loss) == pytest.approx(total / is_valid.sum(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    leaves, groups, valid = make_arguments("groups_and_invalid", np.float32)
    order = np.random.default_rng(1).permutation(BATCH)
    shuffled = leaves | {k: leaves[k][order] for k in ("ecg", "text")}
    before = call(name, leaves, groups, valid)
    after = call(name, shuffled, groups[order], valid[order])
    assert_same(after, before, 1e-6)


def test_metrics_of_perfect_and_of_collapsed_embeddings() -> None:
    eye, same = jnp.eye(BATCH), jnp.ones((BATCH, 4)) / 2
    scale, groups, valid = jnp.asarray(10.0), jnp.zeros((BATCH, 0), jnp.int32), jnp.ones(BATCH, bool)
    _, perfect = reference.infonce(eye, eye, scale, groups, valid, direction="sum")
    assert {k: float(v) for k, v in perfect.items()} == {
        "recall_at_1_ecg_to_text": 1.0,
        "recall_at_1_text_to_ecg": 1.0,
        "positive_cosine": 1.0,
        "negative_cosine": 0.0,
    }
    loss, collapsed = reference.infonce(same, same, scale, groups, valid, direction="mean")
    assert float(collapsed["recall_at_1_ecg_to_text"]) == 0.0
    assert float(loss) == pytest.approx(np.log(BATCH), rel=1e-6)


def test_no_valid_row_gives_zero_loss_and_finite_gradients() -> None:
    leaves, groups, _ = make_arguments("none", np.float32)
    results = all_losses(())(leaves, [(groups, jnp.zeros(BATCH, bool))])
    assert all(float(value) == 0.0 for (value, _), _ in results.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(results))


def test_logits_are_float32_for_bfloat16_towers() -> None:
    leaves, groups, valid = make_arguments("none", np.float32)
    halves = leaves | {k: leaves[k].astype(jnp.bfloat16) for k in ("ecg", "text")}
    loss, metrics = call("infonce_sum", halves, groups, valid)
    assert {loss.dtype, *(m.dtype for m in metrics.values())} == {jnp.dtype(jnp.float32)}
