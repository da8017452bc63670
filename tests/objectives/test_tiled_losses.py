"""The tiled losses against the reference: value, metrics and every gradient, on 1, 2 and 8 devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ecgclip_jax.objectives import reference, tiled
from ecgclip_jax.spec.errors import UserError

Tree = Any
BATCH, DIM = 56, 8
"""7 rows on each of 8 devices."""
DIVIDES, DOES_NOT = 7, 5
"""Sides of tiles."""
AXES = ("data", "fsdp")
NO_MESH = (0, 0)
RELATIVE = {"float32": 1e-5, "float64": 1e-10}


def infonce(module: Any, leaves: Tree, rest: Tree, **how: Any) -> tuple[jax.Array, Tree]:
    masks = rest["groups"], rest["valid"]
    return module.infonce(leaves["ecg"], leaves["text"], leaves["scale"], *masks, **how)


def soft_infonce(module: Any, leaves: Tree, rest: Tree, **how: Any) -> tuple[jax.Array, Tree]:
    return infonce(module, leaves, rest, factors=rest["factors"], soft_target_weight=0.3, soft_target_scale=4.0, **how)


def sigmoid(module: Any, leaves: Tree, rest: Tree, **how: Any) -> tuple[jax.Array, Tree]:
    masks = rest["groups"], rest["valid"]
    return module.sigmoid(leaves["ecg"], leaves["text"], leaves["scale"], leaves["bias"], *masks, **how)


def soft_sigmoid(module: Any, leaves: Tree, rest: Tree, **how: Any) -> tuple[jax.Array, Tree]:
    return sigmoid(module, leaves, rest, factors=rest["factors"], reduction="pairs", **how)


def l1_alignment(module: Any, leaves: Tree, rest: Tree, **how: Any) -> tuple[jax.Array, Tree]:
    return module.l1_alignment(leaves["ecg"], leaves["text"], rest["factors"], rest["valid"], **how), {}


LOSSES: dict[str, Callable[..., tuple[jax.Array, Tree]]] = {
    "infonce": partial(infonce, direction="sum"),
    "infonce of rows": partial(infonce, direction="rows"),
    "soft infonce": partial(soft_infonce, direction="mean"),
    "sigmoid": sigmoid,
    "soft sigmoid": soft_sigmoid,
    "l1": l1_alignment,
    "l1 over pairs": partial(l1_alignment, reduction="pairs"),
}


def unit_rows(rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(BATCH, DIM))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make_arguments(dtype: str, masked: bool = True) -> tuple[Tree, Tree]:
    """What has a gradient, and the rest. Unmasked: every row is valid and a group of its own."""
    rng = np.random.default_rng(0)
    leaves = {"ecg": unit_rows(rng), "text": unit_rows(rng), "scale": np.asarray(1 / 0.07), "bias": np.asarray(-3.0)}
    rest = {"groups": rng.integers(0, 24, size=(BATCH, 2)), "valid": rng.random(BATCH) > 0.2}
    if not masked:
        rest = {"groups": np.stack([np.arange(BATCH)] * 2, axis=1), "valid": np.ones(BATCH, bool)}
    rest |= {"groups": rest["groups"].astype(np.int32), "factors": unit_rows(rng).astype(dtype)}
    return {name: np.asarray(leaf, dtype) for name, leaf in leaves.items()}, rest


@contextmanager
def devices(mesh_shape: tuple[int, int], dtype: str = "float32") -> Iterator[tuple[str, ...]]:
    """The axes of a mesh of this shape, which is the context's; none for `NO_MESH`."""
    with jax.enable_x64(dtype == "float64"):
        if mesh_shape == NO_MESH:
            yield ()
            return
        n_devices = mesh_shape[0] * mesh_shape[1]
        mesh = jax.make_mesh(mesh_shape, AXES, devices=jax.devices()[:n_devices], axis_types=(AxisType.Auto,) * 2)
        with jax.set_mesh(mesh):
            yield AXES


@cache
def program(axes: tuple[str, ...], tile: int) -> Callable[[Tree, Tree], Tree]:
    """Every loss in tiles, its metrics and its gradients, in one compilation."""
    return jax.jit(partial(all_results, tiled, axes=axes, tile=tile))


def all_results(module: Any, leaves: Tree, rest: Tree, **how: Any) -> Tree:
    return {
        name: jax.value_and_grad(lambda leaves, loss=loss: loss(module, leaves, rest, **how), has_aux=True)(leaves)
        for name, loss in LOSSES.items()
    }


def run(leaves: Tree, rest: Tree, mesh_shape: tuple[int, int], tile: int = DOES_NOT) -> Tree:
    """Results of the tiled losses, on arguments sharded over the mesh."""
    dtype = str(leaves["ecg"].dtype)
    with devices(mesh_shape, dtype) as axes:
        if axes:
            rows = NamedSharding(jax.sharding.get_mesh(), PartitionSpec(axes))
            leaves = leaves | jax.device_put({name: leaves[name] for name in ("ecg", "text")}, rows)
            rest = jax.device_put(rest, rows)
        return jax.device_get(program(axes, tile)(leaves, rest))


expected_program = jax.jit(partial(all_results, reference))


def expected(leaves: Tree, rest: Tree) -> Tree:
    with jax.enable_x64(leaves["ecg"].dtype == np.float64):
        return jax.device_get(expected_program(leaves, rest))


def assert_same(found: Tree, wanted: Tree, relative: float) -> None:
    """Norm-relative agreement of every leaf."""
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= relative * max(np.linalg.norm(b), 1e-12), (path, a, b)


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(
    ("mesh_shape", "tile"), [(NO_MESH, DIVIDES), ((1, 1), DOES_NOT), ((2, 1), DOES_NOT), ((4, 2), DOES_NOT)]
)
def test_tiles_equal_the_reference(dtype: str, mesh_shape: tuple[int, int], tile: int) -> None:
    for masked in (False, True):
        leaves, rest = make_arguments(dtype, masked)
        found = run(leaves, rest, mesh_shape, tile)
        assert_same(found, expected(leaves, rest), RELATIVE[dtype])
        assert all(str(gradients["ecg"].dtype) == dtype for _, gradients in found.values())


def test_a_tile_as_large_as_the_rows_of_a_device() -> None:
    leaves, rest = make_arguments("float32")
    assert_same(run(leaves, rest, (4, 2), 2048), expected(leaves, rest), 1e-5)


def test_order_of_the_batch_does_not_matter() -> None:
    """Rows in another order, on other devices: the same losses, and gradients in that order."""
    leaves, rest = make_arguments("float32")
    order = np.random.default_rng(1).permutation(BATCH)
    shuffled = leaves | {name: leaves[name][order] for name in ("ecg", "text")}
    before, after = run(leaves, rest, (4, 2)), run(shuffled, {name: x[order] for name, x in rest.items()}, (4, 2))
    for _, gradients in before.values():
        gradients |= {name: gradients[name][order] for name in ("ecg", "text")}
    assert_same(after, before, 5e-6)


def test_logits_of_a_hundred() -> None:
    """At the largest scale a row's positive lies 200 below another row's: the running maximum is each row's own."""
    leaves, rest = make_arguments("float64", masked=False)
    opposite = np.arange(BATCH) % 3 == 0
    leaves["text"] = np.where(opposite[:, None], -leaves["ecg"], leaves["ecg"])
    leaves["scale"] = np.asarray(100.0)
    exact = expected(leaves, rest)
    found = run(*jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, (leaves, rest)), (4, 2))
    for name in LOSSES.keys() - {"l1", "l1 over pairs"}:  # they have no scale
        assert_same(found[name], exact[name], 1e-5)


def test_no_valid_row_gives_zero_losses_and_gradients() -> None:
    leaves, rest = make_arguments("float32")
    found = run(leaves, rest | {"valid": np.zeros(BATCH, bool)}, (4, 2))
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(found))


def test_every_pair_masked_leaves_the_positives() -> None:
    leaves, rest = make_arguments("float32", masked=False)
    rest["groups"] = np.zeros_like(rest["groups"])
    found = run(leaves, rest, (4, 2))
    wanted = expected(leaves, rest)
    for name in ("sigmoid", "soft sigmoid"):
        assert_same(found[name], wanted[name], 1e-5)
    for name in ("infonce", "soft infonce"):
        (value, _), gradients = found[name]
        assert abs(value) < 1e-5
        assert all(np.abs(x).max() < 1e-6 for x in gradients.values())


def test_bfloat16_embeddings_have_float32_losses_and_bfloat16_gradients() -> None:
    leaves, rest = jax.tree.map(jnp.asarray, make_arguments("float32"))
    halves = leaves | {name: jnp.asarray(leaves[name], jnp.bfloat16) for name in ("ecg", "text")}
    differentiated = jax.jit(jax.value_and_grad(lambda x: soft_sigmoid(tiled, x, rest), has_aux=True))
    (value, metrics), gradients = differentiated(halves)
    assert {value.dtype, *(m.dtype for m in metrics.values()), gradients["scale"].dtype} == {jnp.dtype(jnp.float32)}
    assert gradients["ecg"].dtype == jnp.bfloat16
    assert_same(value, expected(halves, rest)["soft sigmoid"][0][0], 1e-5)


def test_a_wider_scale_leaves_sums_as_wide_as_the_embeddings() -> None:
    leaves, rest = make_arguments("float32")
    with jax.enable_x64(True):
        wide = leaves | {"scale": leaves["scale"].astype(np.float64)}
        differentiated = jax.jit(jax.value_and_grad(lambda x, rest: sigmoid(tiled, x, rest), has_aux=True))
        (value, _), gradients = differentiated(wide, rest)
    assert (value.dtype, gradients["scale"].dtype) == (np.float32, np.float64)
    assert_same(value, expected(leaves, rest)["sigmoid"][0][0], 1e-5)


def test_narrow_products_round_what_is_multiplied_and_sum_in_float32() -> None:
    leaves, rest = jax.tree.map(jnp.asarray, make_arguments("float32"))
    narrow = partial(infonce, tiled, rest=rest, direction="sum", tile=DOES_NOT, matmul_dtype=jnp.bfloat16)
    (value, _), gradients = jax.jit(jax.value_and_grad(lambda x: narrow(x), has_aux=True))(leaves)
    rounded = leaves | {name: jnp.asarray(leaves[name], jnp.bfloat16) for name in ("ecg", "text")}
    assert_same(value, expected(rounded, rest)["infonce"][0][0], 1e-5)
    assert gradients["ecg"].dtype == jnp.float32
    _, exact = expected(leaves, rest)["infonce"]
    assert_same(gradients, exact, 2e-2)
    assert not np.allclose(gradients["ecg"], exact["ecg"], rtol=1e-5)


def test_factors_have_no_gradient() -> None:
    leaves, rest = jax.tree.map(jnp.asarray, make_arguments("float32"))
    for module in (reference, tiled):
        gradient = jax.jit(jax.grad(lambda f, module=module: soft_sigmoid(module, leaves, rest | {"factors": f})[0]))
        assert not np.asarray(gradient(rest["factors"])).any()


def call(ecgs: int = BATCH, texts: int = BATCH, text_dim: int = DIM, axes: tuple[str, ...] = ()) -> None:
    groups, valid = jnp.zeros((ecgs, 0), jnp.int32), jnp.ones(ecgs, bool)
    ecg, text = jnp.zeros((ecgs, DIM)), jnp.zeros((texts, text_dim))
    tiled.infonce(ecg, text, jnp.asarray(1.0), groups, valid, direction="sum", axes=axes)


@pytest.mark.parametrize("changes", [{"texts": BATCH + 1}, {"text_dim": DIM + 1}])
def test_embeddings_that_do_not_pair_up(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"as many texts as ECGs.*\(56, 8\)"):
        call(**changes)


def test_a_batch_that_does_not_divide_the_mesh() -> None:
    with devices((4, 2)), pytest.raises(UserError, match=r"divides by the 8 devices.* found 57 pairs"):
        call(ecgs=BATCH + 1, texts=BATCH + 1, axes=AXES)


def test_an_axis_the_mesh_lacks() -> None:
    with devices((4, 2)), pytest.raises(UserError, match="axes data, model and found data, fsdp"):
        call(axes=("data", "model"))
    with pytest.raises(UserError, match="found none"):
        call(axes=AXES)
