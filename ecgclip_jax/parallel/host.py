"""Between the host and the mesh: this process's rows of a batch become one global array per field."""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ecgclip_jax.parallel.mesh import MESH_AXES, MeshError

Tree = TypeVar("Tree")


def batch_sharding(mesh: Mesh, micro_batches: int = 1) -> NamedSharding:
    """Rows over every device of the mesh, all other axes whole; rows are the second axis of a batch in parts."""
    return NamedSharding(mesh, P(MESH_AXES) if micro_batches == 1 else P(None, MESH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device of the mesh."""
    return NamedSharding(mesh, P())


def to_global(batch: Tree, mesh: Mesh, micro_batches: int = 1) -> Tree:
    """A pytree of this process's numpy rows as global arrays `[batch, ...]`, sharded by `batch_sharding`.

    Every process passes the same number of rows, those of `data.order.local_rows`; nothing is sent between processes.
    More than one micro-batch gives `[micro_batches, batch / micro_batches, ...]`.

    Raises:
        ValueError: rows that do not divide by this process's devices and the micro-batches.
        TypeError: a dtype that has no place on a device, or that a device would cut (text, objects, int64).
    """
    sharding = batch_sharding(mesh, micro_batches)
    n_local = len(sharding.addressable_devices)

    def place(path: tuple[object, ...], leaf: np.ndarray) -> jax.Array:
        array = np.asarray(leaf)
        _check_leaf(jax.tree_util.keystr(path), array, n_local, micro_batches)
        if micro_batches > 1:
            array = array.reshape(micro_batches, array.shape[0] // micro_batches, *array.shape[1:])
        placed: jax.Array = jax.make_array_from_process_local_data(sharding, array)
        return placed

    on_mesh: Tree = jax.tree_util.tree_map_with_path(place, batch)
    return on_mesh


def process_rows(mesh: Mesh, batch_global: int) -> range:
    """The contiguous rows of a global batch that this process's devices hold.

    Raises:
        MeshError: the global batch does not divide by the devices of the mesh.
    """
    if batch_global % mesh.size:
        raise MeshError(f"data.batch_global {batch_global} must divide by the {mesh.size} devices of the mesh")
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_global,)).values()
    starts = [0 if index is None else index[0].start or 0 for index in slices]
    return range(min(starts), max(starts) + batch_global // mesh.size)


def _check_leaf(name: str, array: np.ndarray, n_local_devices: int, micro_batches: int) -> None:
    if array.dtype.kind not in "biuf" or array.dtype in (np.int64, np.uint64, np.float64):
        raise TypeError(
            f"batch field {name} has dtype {array.dtype}: a device takes numbers of at most 32 bits; "
            "texts and ids travel as int32 rows of the run's tables"
        )
    if array.ndim == 0 or array.shape[0] % (n_local_devices * micro_batches):
        raise ValueError(
            f"batch field {name} has shape {array.shape}: its first axis must divide by the {n_local_devices} local "
            f"devices{f' times {micro_batches} micro-batches' if micro_batches > 1 else ''}"
        )
