"""The mesh and the way onto it: sizes, order of rows, and errors that say what would fit."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from ecgclip_jax.contracts import Batch, TextTokens
from ecgclip_jax.parallel.host import batch_sharding, process_rows, replicated, to_global
from ecgclip_jax.parallel.mesh import MeshError, build_mesh
from ecgclip_jax.spec.experiment import MeshSpec


@pytest.mark.parametrize(
    ("spec", "n_devices", "shape"),
    [
        (MeshSpec(), 8, (8, 1)),
        (MeshSpec(), 1, (1, 1)),
        (MeshSpec(fsdp=2), 8, (4, 2)),
        (MeshSpec(data=2, fsdp=4), 8, (2, 4)),
    ],
)
def test_mesh_shape_and_axis_types(spec: MeshSpec, n_devices: int, shape: tuple[int, int]) -> None:
    mesh = build_mesh(spec, jax.devices()[:n_devices])
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == shape
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_devices_stand_in_order_of_process_and_id_whatever_order_they_come_in() -> None:
    mesh = build_mesh(MeshSpec(fsdp=2), jax.devices()[::-1])
    assert [d.id for d in mesh.devices.ravel()] == sorted(d.id for d in jax.devices())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MeshSpec(fsdp=3), r"mesh\.fsdp 3 does not divide the 8 devices; it may be 1, 2, 4, 8"),
        (MeshSpec(data=3), r"3 \(data\) x 1 \(fsdp\) needs 3 devices, found 8; mesh\.data -1 takes the 8"),
        (MeshSpec(data=8, fsdp=2), r"needs 16 devices, found 8"),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(spec: MeshSpec, message: str) -> None:
    with pytest.raises(MeshError, match=message):
        build_mesh(spec, jax.devices()[:8])


def small_batch(rows: int) -> Batch:
    row = np.arange(rows, dtype=np.int32)
    return Batch(
        ecg_uv=np.arange(rows * 6, dtype=np.int16).reshape(rows, 3, 2),
        record_row=row,
        patient_group=row,
        text_group=row[:, None],
        texts=TextTokens(ids=np.ones((rows, 1, 4), np.int32), mask=np.ones((rows, 1, 4), bool)),
        text_valid=np.ones((rows, 1), bool),
        extras={"mains_hz": np.full(rows, 50, np.float32)},
        extras_present={"mains_hz": np.ones(rows, bool)},
    )


@pytest.mark.parametrize("spec", [MeshSpec(), MeshSpec(fsdp=4)])
def test_global_batch_keeps_values_order_and_types(spec: MeshSpec) -> None:
    mesh = build_mesh(spec)
    local = small_batch(16)
    placed = to_global(local, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(local)
    for there, here in zip(jax.tree.leaves(placed), jax.tree.leaves(local), strict=True):
        assert there.sharding.is_equivalent_to(batch_sharding(mesh), there.ndim)
        assert there.dtype == here.dtype
        np.testing.assert_array_equal(np.asarray(there), here)
    # Device k of the mesh in row-major order holds rows [2k, 2k + 2).
    by_device = {shard.device: np.asarray(shard.data) for shard in placed.record_row.addressable_shards}
    for k, device in enumerate(mesh.devices.ravel()):
        np.testing.assert_array_equal(by_device[device], [2 * k, 2 * k + 1])


def test_process_rows_cover_the_batch_and_must_divide() -> None:
    mesh = build_mesh(MeshSpec(fsdp=2))
    assert process_rows(mesh, 32) == range(32)
    with pytest.raises(ValueError, match="batch_global 12 must divide by the 8 devices"):
        process_rows(mesh, 12)


def test_replicated_is_whole_on_every_device() -> None:
    placed = jax.device_put(np.arange(3), replicated(build_mesh(MeshSpec())))
    assert placed.sharding.is_fully_replicated


def test_rows_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"ecg_uv has shape \(12, 3, 2\).*8 local devices"):
        to_global(small_batch(12), build_mesh(MeshSpec()))


@pytest.mark.parametrize("bad", [np.array(["a"] * 8), np.arange(8), np.zeros(8), np.array([b"x"] * 8, object)])
def test_texts_and_wide_numbers_do_not_reach_the_device(bad: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"\['x'\] has dtype .* int32 rows"):
        to_global({"x": bad}, build_mesh(MeshSpec()))
