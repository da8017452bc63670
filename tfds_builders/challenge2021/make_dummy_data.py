"""Writes a small Challenge 2021 in its native layout: one record of each database, each with what its headers do.

python -m tfds_builders.challenge2021.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.dummy import dummy_ecgs, write_wfdb


@dataclass(frozen=True)
class Example:
    """A record as its database writes it."""

    path: str
    age: str
    sex: str
    dx: str
    rate_hz: int = 500
    gain: str = "1000/mV"
    record_line: str = "{name} {leads} {rate} {samples} 05-May-2020 14:50:55"
    comment: str = "#"
    leads: tuple[str, ...] = LEADS_12


EXAMPLES = (
    Example("cpsc_2018/g1/A0001", "74", "Male", "59118001"),
    Example("cpsc_2018_extra/g1/Q0001", "NaN", "Female", "428750005,426783006", comment="# "),
    Example("st_petersburg_incart/g1/I0001", "65", "F", "61277005,427393009", rate_hz=257, gain="306/mV"),
    Example("ptb/g1/S0001", "81", "Female", "164865005", rate_hz=1000, leads=tuple(lead.lower() for lead in LEADS_12)),
    Example(
        "ptb-xl/g1/HR00001",
        "300",
        "Male",
        "426783006",
        gain="1000.0(0)/mV",
        record_line="{name} {leads} {rate} {samples}",
    ),
    Example(
        "georgia/g1/E00001", "60", "Male", "426177001,426177001", record_line="{name}.mat {leads} {rate} {samples}"
    ),
    Example("chapman_shaoxing/g1/JS00344", "59", "Female", "426177001,"),
    Example("ningbo/g1/JS13287", "-1", "Unknown", "426783006,,55827005"),
)
"""INCART's recordings last half an hour in truth."""


def write_dummy(folder: Path) -> None:
    """One record of each database, six seconds long."""
    for example, ecg_uv in zip(EXAMPLES, dummy_ecgs(len(EXAMPLES), n_samples=3000), strict=True):
        per_mv = float(example.gain.partition("/")[0].partition("(")[0])
        samples = resample_poly(ecg_uv * (per_mv / 1000.0), example.rate_hz, 500, axis=0)
        facts = {"Age": example.age, "Sex": example.sex, "Dx": example.dx}
        facts |= dict.fromkeys(("Rx", "Hx", "Sx"), "Unknown")
        write_wfdb(
            folder / "training" / example.path,
            np.rint(samples).astype(np.int16),
            rate_hz=example.rate_hz,
            gain=example.gain,
            leads=example.leads,
            comments=[f"{example.comment}{name}: {value}" for name, value in facts.items()],
            record_line=example.record_line,
            mat=True,
        )


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
