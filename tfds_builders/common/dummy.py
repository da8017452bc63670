"""Small made-up ECGs in the native formats of cohorts: what every `make_dummy_data.py` writes its files with."""

from __future__ import annotations

import csv
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64, Int16

from ecgclip_jax.spec.signal import LEADS_12

_WAVES: Final = ((-0.16, 0.02, 120.0), (0.0, 0.012, 1000.0), (0.28, 0.05, 250.0))
"""P, QRS and T: delay from the R peak in s, width in s, height in µV."""


def dummy_ecgs(
    count: int, *, n_samples: int = 5000, rate_hz: float = 500.0, seed: int = 0
) -> Int16[np.ndarray, "n t 12"]:
    """Plain sinus rhythms in µV, all different: Gaussian P, QRS and T with noise; the limb leads obey Einthoven."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / rate_hz
    ecgs = np.empty((count, n_samples, 12), np.int16)
    for ecg in ecgs:
        beat_s = np.arange(rng.uniform(0.2, 0.6), n_samples / rate_hz, rng.uniform(0.7, 1.0))
        beat = sum(
            height_uv * np.exp(-0.5 * ((time_s[:, None] - beat_s - delay_s) / width_s) ** 2).sum(axis=1)
            for delay_s, width_s, height_uv in _WAVES
        )
        independent = np.outer(beat, rng.uniform(0.4, 1.4, 8)) + rng.normal(0, 10, (n_samples, 8))
        ecg[:] = _twelve(independent)
    return ecgs


def _twelve(independent_uv: Float64[np.ndarray, "t 8"]) -> Float64[np.ndarray, "t 12"]:
    """I, II, V1 to V6 to all twelve leads in the standard order."""
    lead_i, lead_ii = np.rint(independent_uv[:, 0]), np.rint(independent_uv[:, 1])
    limb = (lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2)
    return np.column_stack([*limb, independent_uv[:, 2:]])


def checksums(samples: Int16[np.ndarray, "t n"]) -> list[int]:
    """WFDB's 16-bit checksum of every signal."""
    sums: list[int] = samples.sum(axis=0, dtype=np.int16).tolist()
    return sums


def write_wfdb(
    path: Path,
    samples: Int16[np.ndarray, "t n"],
    *,
    rate_hz: int,
    gain: str,
    leads: Sequence[str] = LEADS_12,
    comments: Sequence[str] = (),
    record_line: str = "{name} {leads} {rate} {samples}",
    mat: bool = False,
) -> None:
    """Writes `path`.hea and its samples, as a `.dat` of format 16 or as the Challenge's `.mat`.

    Args:
      path: without suffix.
      samples: converter units.
      gain: third field of the signal lines, as `1000/mV`.
      comments: with their comment sign, verbatim.
      record_line: the header's first line.
      mat: a MATLAB level 4 matrix `val` (format 16+24) instead of `.dat`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name, n_leads = path.name, len(leads)
    file_name, form = (f"{name}.mat", "16+24") if mat else (f"{name}.dat", "16")
    lines = [record_line.format(name=name, leads=n_leads, rate=rate_hz, samples=len(samples))]
    for lead, first, total in zip(leads, samples[0].tolist(), checksums(samples), strict=True):
        lines.append(f"{file_name} {form} {gain} 16 0 {first} {total} 0 {lead}")
    path.with_name(f"{name}.hea").write_text("\n".join([*lines, *comments]) + "\n", encoding="utf-8")
    head = struct.pack("<5i", 30, n_leads, len(samples), 0, 4) + b"val\0" if mat else b""
    path.with_name(file_name).write_bytes(head + np.ascontiguousarray(samples, "<i2").tobytes())


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Writes a metadata table; cells that a row lacks stay empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
