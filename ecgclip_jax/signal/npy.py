"""numpy's own files (`.npy`) of ECGs, opened without trust: within the folder, mapped, never unpickled."""

from __future__ import annotations

import os

import numpy as np

from ecgclip_jax.signal.paths import member, record_folder, regular_file_size, unreadable
from ecgclip_jax.signal.record import ECGReadError, ReasonCode


def open_npy(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str], row_shape: tuple[int, ...]
) -> np.memmap[tuple[int, ...], np.dtype[np.floating]]:
    """The array of a file as it lies on disk: rows of floating-point numbers, read when they are asked for.

    Args:
        path: the file.
        root: the source's folder, which the file must lie in.
        row_shape: shape of one row; the first axis counts rows.

    Raises:
        ECGReadError: `path_outside_source`, `missing_file`, `unreadable` (cut short, Python objects, another shape).
    """
    folder, name, real_root = record_folder(path, root)
    file = member(folder, name, real_root)
    regular_file_size(file)
    try:
        array: np.memmap[tuple[int, ...], np.dtype[np.floating]] = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, OverflowError) as error:
        raise unreadable(file, f"numpy: {error}") from None
    if array.shape[1:] != row_shape or array.dtype.kind != "f":
        raise ECGReadError.because(
            ReasonCode.unreadable,
            file,
            expected=f"floating-point rows of shape {row_shape}",
            found=f"{array.dtype} of shape {array.shape}",
            remedy="Is it the cohort's own file, and whole? Download it again.",
        )
    return array
