"""The device mesh of a run: which devices, in which order, along which axes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import MeshSpec

MESH_AXES = ("data", "fsdp")
"""Both carry rows of the batch; `fsdp` also carries pieces of the parameters."""


class MeshError(UserError):
    """Devices that cannot form the mesh that was asked for; the message says what would fit."""


def build_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A `data` x `fsdp` mesh over `devices` (default: all devices of all processes), every axis `AxisType.Auto`.

    Devices are ordered by process, then by id, so that each process holds one contiguous block of every global batch:
    the rows `[p·B/n, (p+1)·B/n)` that `data.pipeline` reads for it. (`jax.make_mesh` may interleave processes.)

    Raises:
        MeshError: the axis sizes do not fit the number of devices.
    """
    found = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    data, fsdp = _axis_sizes(spec, len(found))
    grid = np.empty(len(found), dtype=object)
    grid[:] = found
    return Mesh(grid.reshape(data, fsdp), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _axis_sizes(spec: MeshSpec, n_devices: int) -> tuple[int, int]:
    if n_devices % spec.fsdp:
        raise MeshError(
            f"mesh.fsdp {spec.fsdp} does not divide the {n_devices} devices; "
            f"it may be {', '.join(str(d) for d in _divisors(n_devices))}"
        )
    data = n_devices // spec.fsdp if spec.data == -1 else spec.data
    if data * spec.fsdp != n_devices:
        raise MeshError(
            f"mesh {data} (data) x {spec.fsdp} (fsdp) needs {data * spec.fsdp} devices, found {n_devices}; "
            f"mesh.data -1 takes the {n_devices // spec.fsdp} that are left"
        )
    return data, spec.fsdp


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
