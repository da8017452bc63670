"""The MATLAB structs of CPSC 2018: `ECG` with `sex`, `age` and `data`, 12 leads in mV."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from ecgclip_jax.signal.paths import member, read_regular_file, record_folder
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode, Sex, SourceFacts
from ecgclip_jax.spec.signal import LEADS_12

RATE_HZ: Final = 500.0
"""The struct does not say it; the cohort's description does."""
_MAX_FILE_BYTES: Final = 2**24
_MAX_UNPACKED_BYTES: Final = 2**26
"""A minute of 12 leads in float64 is 2.9 MB; CPSC's longest recording has 2.4 minutes."""
_FILE_HEADER_BYTES: Final = 128
_COMPRESSED: Final = 15
_SEX: Final[dict[str, Sex]] = {"male": "male", "female": "female"}


def read_cpsc_struct(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> ECGRecord:
    """Reads one `.mat` of CPSC 2018's own distribution.

    Args:
        path: the file.
        root: folder that it must lie in; its own by default.

    Returns:
        Twelve leads at 500 Hz. The converter's step is not stated: `resolution_uv` is NaN.

    Raises:
        ECGReadError: with the reason code.
    """
    folder, name, real_root = record_folder(path, root)
    content = read_regular_file(member(folder, name, real_root), max_bytes=_MAX_FILE_BYTES)
    _refuse_bombs(name, content)
    fields = _fields(name, content)
    data = np.asarray(fields["data"], np.float64)
    if data.ndim != 2 or data.shape[0] != len(LEADS_12) or not data.shape[1]:
        raise _unlike(name, f"data of shape {data.shape}")
    return ECGRecord(
        record_id=os.path.splitext(name)[0],
        samples=_microvolts(data),
        leads=LEADS_12,
        rate_hz=RATE_HZ,
        facts=SourceFacts(
            format="matlab struct",
            resolution_uv=float("nan"),
            age_years=_age(fields["age"]),
            sex=_SEX.get(str(np.squeeze(fields["sex"])).lower()),
        ),
    )


def _microvolts(data_mv: np.ndarray) -> Float32[np.ndarray, "time 12"]:
    return np.ascontiguousarray((data_mv * 1000.0).T, np.float32)


def _age(cell: Any) -> float | None:
    age = np.squeeze(np.asarray(cell))
    return float(age) if age.ndim == 0 and np.issubdtype(age.dtype, np.number) and np.isfinite(age) else None


def _fields(name: str, content: bytes) -> dict[str, Any]:
    from scipy.io import loadmat  # here: half a second of import that other formats never need

    try:
        file: Any = io.BytesIO(content)  # scipy-stubs knows paths only
        ecg = loadmat(file, variable_names=["ECG"], appendmat=False)["ECG"]
        return {field: ecg[field][0, 0] for field in ("sex", "age", "data")}
    except Exception as error:  # whatever a parser throws at hostile bytes is one thing to the caller
        raise _unlike(name, f"{type(error).__name__}: {error}") from None


def _refuse_bombs(name: str, content: bytes) -> None:
    """Unpacks compressed elements as far as they may go: scipy would unpack them to the end."""
    position, unpacked = _FILE_HEADER_BYTES, 0
    while position + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, position)
        position += 8
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            try:
                unpacked += len(inflater.decompress(content[position : position + size], _MAX_UNPACKED_BYTES))
            except zlib.error as error:
                raise _unlike(name, f"damaged compression ({error})") from None
            if inflater.unconsumed_tail or unpacked > _MAX_UNPACKED_BYTES:
                raise _unlike(name, f"more than {_MAX_UNPACKED_BYTES:,} bytes when unpacked")
        position += size


def _unlike(name: str, found: str) -> ECGReadError:
    return ECGReadError.because(
        ReasonCode.unreadable,
        name,
        expected="a MATLAB file with a struct ECG of sex, age and data (12 × samples), as CPSC 2018 publishes it",
        found=found,
        remedy="Download it again, or leave the record out.",
    )
