"""A whole cohort in the devices' memory: the host sends row numbers, and a batch is gathered where it is used.

Each device holds some of the order's shards (`data.order`), and its rows of every batch are of these: the gather sends
nothing between devices. What it gives is what the loader reads, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, Int16, Int32

from ecgclip_jax.contracts import Batch
from ecgclip_jax.data.order import GlobalOrder, shard_records
from ecgclip_jax.data.reading import RecordReader
from ecgclip_jax.parallel.agreement import together
from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.parallel.mesh import MESH_AXES
from ecgclip_jax.signal.gaps import derive_limb_leads
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.signal import MISSING_UV, STORED_LEADS, STORED_SAMPLES, LeadName
from ecgclip_jax.tracking import counting

_READ_AT_A_TIME = 256
_DERIVED = tuple(STORED_LEADS.index(lead) for lead in ("III", "aVR", "aVL", "aVF"))
_ALL = tuple(range(len(STORED_LEADS)))
_INDEPENDENT = tuple(lead for lead in _ALL if lead not in _DERIVED)
_GIB = 2**30


class ResidentError(UserError):
    """A cohort that cannot be held on the devices; the message says what is missing and which setting helps."""


class ResidentCohort:
    """The waveforms of a run on the mesh, by record."""

    def __init__(
        self,
        mesh: Mesh,
        order: GlobalOrder,
        reader: RecordReader,
        seen: Sequence[LeadName],
        *,
        eight_leads: bool = False,
    ) -> None:
        """Reads all records once, each onto the device that will use it.

        Args:
            seen: the leads that the encoder takes.
            eight_leads: leave out the limb leads that I and II determine.

        Raises:
            ResidentError: shards that do not divide by the devices, too little memory, or leads that cannot be derived
                exactly. CohortError: records that cannot be read.
        """
        if order.shards % mesh.size:
            raise ResidentError(
                f"resident input needs data.shuffle_shards ({order.shards}) to be a multiple of the {mesh.size} devices"
                f" of the mesh, so that each holds what its rows are made of: --data.shuffle-shards {mesh.size}"
            )
        self._leads = _INDEPENDENT if eight_leads else _ALL
        self._seen = [STORED_LEADS.index(lead) for lead in seen if STORED_LEADS.index(lead) < 6]
        records = _by_device(order, mesh.size)
        self.rows_per_device = records.shape[1]
        together(lambda: _require_room(mesh, self.rows_per_device, len(self._leads), eight_leads=eight_leads))
        self._ecg_uv = together(lambda: self._fill(mesh, records, reader))
        places = np.zeros(sum(order.sizes), np.int32)
        for on_device in records:
            places[on_device[on_device >= 0]] = np.flatnonzero(on_device >= 0)
        self._places: Array = jax.device_put(places, replicated(mesh))
        rows = batch_sharding(mesh, order.micro_batches).spec
        gather = partial(_gather, self._leads)
        self.gather = jax.jit(
            jax.shard_map(gather, mesh=mesh, in_specs=(P(MESH_AXES), P(), rows), out_specs=rows, check_vma=False)
        )

    @property
    def arguments(self) -> tuple[Array, Array]:
        """What `gather` takes before the rows: waveforms [devices x rows, time, lead], and each record's place."""
        return self._ecg_uv, self._places

    def take(self, batch: Batch) -> Batch:
        """A batch on the mesh with the waveforms of its records."""
        return replace(batch, ecg_uv=self.gather(*self.arguments, batch.record_row))

    def _fill(self, mesh: Mesh, records: Int32[np.ndarray, "devices rows"], reader: RecordReader) -> Array:
        sharding = NamedSharding(mesh, P(MESH_AXES))
        shape = (records.size, STORED_SAMPLES, len(self._leads))
        blocks = []
        indices = sharding.addressable_devices_indices_map(shape)
        local = {(index[0].start or 0) if index else 0: device for device, index in indices.items()}
        total = sum(int((records[start // self.rows_per_device] >= 0).sum()) for start in local)
        with counting("reading ECGs onto the devices", total, "ECG") as advance:
            for start, device in sorted(local.items()):
                with jax.default_device(device):
                    block = jnp.zeros((self.rows_per_device, *shape[1:]), jnp.int16)
                own = records[start // self.rows_per_device]
                own = own[own >= 0]
                for first in range(0, len(own), _READ_AT_A_TIME):
                    ecg_uv = reader.read(own[first : first + _READ_AT_A_TIME])
                    self._require_exact(ecg_uv)
                    kept = jax.device_put(np.ascontiguousarray(ecg_uv[:, :, self._leads]), device)
                    block = _put(block, kept, jax.device_put(np.int32(first), device))
                    advance(len(ecg_uv))
                blocks.append(block)
        whole: Array = jax.make_array_from_single_device_arrays(shape, sharding, blocks)
        return whole

    def _require_exact(self, ecg_uv: Int16[np.ndarray, "records time lead"]) -> None:
        """Whether the encoder sees the same limb leads without those that are left out."""
        if len(self._leads) == len(_ALL) or not self._seen:
            return
        reduced = ecg_uv.copy()
        reduced[:, :, _DERIVED] = MISSING_UV
        with_all, without = (np.asarray(_derive(jnp.asarray(x)))[:, :, self._seen] for x in (ecg_uv, reduced))
        differing = (with_all != without).any(axis=(1, 2))
        if differing.any():
            largest = int(np.abs(with_all.astype(np.int32) - without).max())
            raise ResidentError(
                f"data.input resident_8_leads: in {int(differing.sum())} of {len(ecg_uv)} records read at once III, "
                f"aVR, aVL or aVF is not what I and II determine to the microvolt (by up to {largest} µV, or I or II "
                "is missing); use --data.input resident, which holds all leads"
            )


def _by_device(order: GlobalOrder, n_devices: int) -> Int32[np.ndarray, "devices rows"]:
    """Which record lies in which row of each device; -1 fills up the shorter ones."""
    shards = shard_records(order)
    per_device = len(shards) // n_devices
    joined = [np.concatenate(shards[d * per_device : (d + 1) * per_device]) for d in range(n_devices)]
    records = np.full((n_devices, max(map(len, joined))), -1, np.int32)
    for row, own in zip(records, joined, strict=True):
        row[: len(own)] = own
    return records


def _gather(
    leads: tuple[int, ...],
    ecg_uv: Int16[Array, "rows time kept"],
    places: Int32[Array, " records"],
    record_row: Int[Array, "*batch"],
) -> Int16[Array, "*batch time 12"]:
    """On one device: its rows of the batch; leads that are not held are missing, as preprocessing expects them."""
    found = ecg_uv.at[places[record_row]].get(mode="promise_in_bounds")
    if leads == _ALL:
        return found
    whole = jnp.full((*found.shape[:-1], len(_ALL)), MISSING_UV, jnp.int16)
    return whole.at[..., np.asarray(leads)].set(found)


_derive = jax.jit(derive_limb_leads)


@partial(jax.jit, donate_argnums=0)
def _put(
    block: Int16[Array, "rows time kept"], chunk: Int16[Array, "some time kept"], first: Int32[Array, ""]
) -> Int16[Array, "rows time kept"]:
    return jax.lax.dynamic_update_slice_in_dim(block, chunk, first, axis=0)


def free_bytes(device: jax.Device) -> int:
    """Bytes that a device has left; of a CPU device its share of the machine's."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 2**62)
    return available // jax.local_device_count()


def _require_room(mesh: Mesh, rows: int, leads: int, *, eight_leads: bool) -> None:
    needed = rows * STORED_SAMPLES * leads * np.dtype(np.int16).itemsize
    free = min(free_bytes(device) for device in mesh.local_devices)
    if needed <= free:
        return
    enough = -(-needed * mesh.size // max(free, 1))
    options = [f"{enough} devices or more instead of {mesh.size}", "--data.input host"]
    if not eight_leads:
        saved = f"(then {needed * 8 / 12 / _GIB:,.2f} GiB)"
        options.insert(0, f"--data.input resident_8_leads {saved}, where the other limb leads are exact")
    raise ResidentError(
        f"the cohort does not fit the devices: each would hold {rows:,} ECGs, {needed / _GIB:,.2f} GiB, and has "
        f"{free / _GIB:,.2f} GiB free: {(needed - free) / _GIB:,.2f} GiB are missing, and the step needs memory too. "
        f"What helps: {'; '.join(options)}"
    )
