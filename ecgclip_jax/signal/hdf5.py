"""HDF5 files of ECGs (CODE-15 %, SaMi-Trop, SPH), opened without trust: within the folder, no size on promise."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from ecgclip_jax.signal.paths import member, record_folder, regular_file_size, unreadable
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode, SourceFacts
from ecgclip_jax.spec.signal import LEADS_12

_LARGEST_RECORDING: Final = 2**26
"""Values of one recording: an hour of 12 leads at 1000 Hz has 43 million."""


def open_hdf5(path: str | os.PathLike[str], *, root: str | os.PathLike[str]) -> Any:  # h5py has no types
    """An `h5py.File` for reading; the caller closes it.

    Raises:
        ECGReadError: `path_outside_source`, `missing_file`, `unreadable`.
    """
    import h5py  # here, because most cohorts never need it

    folder, name, real_root = record_folder(path, root)
    file = member(folder, name, real_root)
    regular_file_size(file)
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise unreadable(file, f"h5py: {error}") from None


def dataset(file: Any, name: str, n_axes: int) -> Any:
    """The dataset `name` of an open file, if its samples are in this file.

    Raises:
        ECGReadError: `unreadable`.
    """
    import h5py

    link = file.get(name, getlink=True)
    found = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or len(found.shape) != n_axes or found.external or found.is_virtual:
        raise ECGReadError.because(
            ReasonCode.unreadable,
            file.filename,
            expected=f"a dataset {name!r} of {n_axes} axes in this file",
            found=f"{list(file)[:10]}",
            remedy="Is it the cohort's own file, and whole? Download it again.",
        )
    return found


def record_of_millivolts(values: Any, lead_axis: int, record_id: str, rate_hz: float, form: str) -> ECGRecord:
    """A recording of all twelve leads in the standard order, from a dataset's part in mV.

    Args:
        values: two axes, time and leads; a dataset is read here.
        lead_axis: which of them has the leads.
        record_id: its name.
        rate_hz: sampling rate, which such files do not state.
        form: what `SourceFacts.format` says.

    Raises:
        ECGReadError: `unreadable`, where there are not twelve leads or no sane number of samples.
    """
    shape = values.shape
    if len(shape) != 2 or shape[lead_axis] != len(LEADS_12) or not 0 < int(np.prod(shape)) <= _LARGEST_RECORDING:
        raise ECGReadError.because(
            ReasonCode.unreadable,
            record_id,
            expected=f"{len(LEADS_12)} leads and up to {_LARGEST_RECORDING:,} values",
            found=f"shape {tuple(shape)}",
            remedy="Download the file again, or leave the record out.",
        )
    signal_uv = _microvolts(np.asarray(values[...], np.float32), lead_axis)
    return ECGRecord(record_id, signal_uv, LEADS_12, rate_hz, SourceFacts(form, resolution_uv=float("nan")))


def _microvolts(values_mv: Float32[np.ndarray, "a b"], lead_axis: int) -> Float32[np.ndarray, "time 12"]:
    return np.ascontiguousarray(np.moveaxis(values_mv, lead_axis, 1) * np.float32(1000.0))
