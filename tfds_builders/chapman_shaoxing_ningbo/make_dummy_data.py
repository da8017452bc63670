"""Writes a small Chapman-Shaoxing-Ningbo in its native layout.

python -m tfds_builders.chapman_shaoxing_ningbo.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tfds_builders.common.dummy import dummy_ecgs, write_csv, write_wfdb

EXAMPLES = (
    ("01/010/JS00001", "85", "Male", "164889003,59118001,164934002"),
    ("01/019/JS00344", "59", "Female", "426177001,"),
    ("46/460/JS45551", "NaN", "Unknown", "426783006,,55827005"),
)
"""Path, age, sex and codes, with the commas too many that the cohort has."""


def write_dummy(folder: Path) -> None:
    """Three records and the table of names."""
    for (path, age, sex, dx), ecg_uv in zip(EXAMPLES, dummy_ecgs(len(EXAMPLES)), strict=True):
        facts = {"Age": age, "Sex": sex, "Dx": dx, "Rx": "Unknown", "Hx": "Unknown", "Sx": "Unknown"}
        comments = [f"#{name}: {value}" for name, value in facts.items()]
        write_wfdb(folder / "WFDBRecords" / path, ecg_uv, rate_hz=500, gain="1000.0(0)/mV", comments=comments, mat=True)
    names = {"Acronym Name": "AFIB", "Full Name": "Atrial Fibrillation", "Snomed_CT": "164889003"}
    write_csv(folder / "ConditionNames_SNOMED-CT.csv", tuple(names), [names])


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
