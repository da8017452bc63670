"""What the tiled losses compile to: their memory at pod-scale batches, no B x B array, no gathered embeddings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ecgclip_jax.objectives import reference, tiled

AXES = ("data", "fsdp")
MIB = 2**20
BATCH, DIM = 65_536, 512
SMALL_BATCH, SMALL_DIM, SMALL_TILE = 4096, 16, 64


Tree = Any


def infonce(module: Any, leaves: Tree, rest: Tree, **how: Any) -> jax.Array:
    return module.infonce(leaves["ecg"], leaves["text"], leaves["scale"], *rest, direction="sum", **how)[0]


def merl(module: Any, leaves: Tree, rest: Tree, **how: Any) -> jax.Array:
    """The loss of ECG and text, and that of the two views of the ECG."""
    views = {"ecg": leaves["view_1"], "text": leaves["view_2"], "scale": jnp.asarray(1 / 0.07)}
    return infonce(module, leaves, rest, **how) + infonce(module, views, rest, **how)


def soft_sigmoid(module: Any, leaves: Tree, rest: Tree, **how: Any) -> jax.Array:
    scale, factors = leaves["scale"], jax.lax.stop_gradient(leaves["text"])
    return module.sigmoid(leaves["ecg"], leaves["text"], scale, -scale, *rest, factors=factors, **how)[0]


def l1(module: Any, leaves: Tree, rest: Tree, **how: Any) -> jax.Array:
    factors = jax.lax.stop_gradient(leaves["text"])
    return module.l1_alignment(leaves["ecg"], leaves["text"], factors, rest[1], **how) + 0 * leaves["scale"]


@cache
def compiled(loss: Callable[..., jax.Array], module: Any, batch: int, dim: int, n_devices: int, **how: Any) -> Any:
    """Value and gradients by all embeddings and the scale, compiled and not run."""
    if n_devices == 1:
        return _compiled(partial(loss, module, **how), batch, dim, None)
    mesh = jax.make_mesh((n_devices // 2, 2), AXES, devices=jax.devices()[:n_devices], axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        axes = {"axes": AXES} if module is tiled else {}
        return _compiled(partial(loss, module, **axes, **how), batch, dim, NamedSharding(mesh, PartitionSpec(AXES)))


def _compiled(loss: partial[jax.Array], batch: int, dim: int, rows: NamedSharding | None) -> Any:
    def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=rows if sizes else None)

    names = ["ecg", "text"] + ["view_1", "view_2"] * (loss.func is merl)
    leaves = {name: shape(batch, dim) for name in names} | {"scale": shape()}
    rest = (shape(batch, 2, dtype=jnp.int32), shape(batch, dtype=bool))
    return jax.jit(jax.value_and_grad(loss)).lower(leaves, rest).compile()


def temporary_mib(*arguments: Any, **how: Any) -> float:
    return compiled(*arguments, **how).memory_analysis().temp_size_in_bytes / MIB


def largest_array(program: Any) -> int:
    """Elements of the largest array anywhere in the compiled program."""
    shapes = re.findall(r"\b(?:f|bf|s|u|pred)\d*\[([\d,]+)\]", program.as_text())
    return max(math.prod(int(size) for size in shape.split(",")) for shape in shapes)


@pytest.mark.parametrize(("loss", "limit_mib"), [(infonce, 64), (soft_sigmoid, 64), (l1, 64), (merl, 320)])
def test_one_device_needs_little_beside_inputs_and_gradients(loss: Callable[..., jax.Array], limit_mib: float) -> None:
    """Accumulators are the gradients themselves; two losses share one array of zeros to start them from."""
    assert temporary_mib(loss, tiled, BATCH, DIM, 1) <= limit_mib


def test_the_global_view_needs_what_the_tiles_avoid() -> None:
    assert temporary_mib(infonce, reference, BATCH, DIM, 1) > 32_768


@pytest.mark.parametrize("loss", [infonce, soft_sigmoid, merl])
def test_a_ring_of_eight_devices_needs_little_on_each(loss: Callable[..., jax.Array]) -> None:
    assert temporary_mib(loss, tiled, BATCH, DIM, 8) <= 160


@pytest.mark.parametrize("n_devices", [1, 8])
def test_memory_grows_with_the_batch_and_not_with_its_square(n_devices: int) -> None:
    growth = temporary_mib(infonce, tiled, 4 * BATCH, DIM, n_devices) / temporary_mib(
        infonce, tiled, BATCH, DIM, n_devices
    )
    assert growth <= 4.3


@pytest.mark.parametrize("n_devices", [1, 8])
def test_no_array_is_larger_than_the_embeddings_of_a_device(n_devices: int) -> None:
    """Not even the pairs of one device's rows and columns are an array."""
    program = compiled(infonce, tiled, SMALL_BATCH, SMALL_DIM, n_devices, tile=SMALL_TILE)
    local_batch = SMALL_BATCH // n_devices
    assert largest_array(program) <= local_batch * max(SMALL_DIM, SMALL_TILE) < local_batch**2
    assert largest_array(compiled(infonce, reference, SMALL_BATCH, SMALL_DIM, 1)) >= SMALL_BATCH**2


def test_embeddings_travel_and_only_scalars_are_summed() -> None:
    text = compiled(infonce, tiled, SMALL_BATCH, SMALL_DIM, 8, tile=SMALL_TILE).as_text()
    found = re.findall(
        r"= (\S.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(", text
    )
    assert {kind for _, kind in found} == {"collective-permute", "all-reduce"}
    summed = [shape for shapes, kind in found if kind == "all-reduce" for shape in re.findall(r"\[([\d,]*)\]", shapes)]
    assert summed
    assert set(summed) == {""}, "an all-reduce of more than scalars"
    assert "all-gather" in compiled(infonce, reference, SMALL_BATCH, SMALL_DIM, 8).as_text()
