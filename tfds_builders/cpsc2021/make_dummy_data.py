"""Writes a small CPSC 2021 in its native layout.

python -m tfds_builders.cpsc2021.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import resample_poly

from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

EXAMPLES = (
    ("Training_set_I/data_0_1", "non atrial fibrillation", "(N"),
    ("Training_set_I/data_7_2", "paroxysmal atrial fibrillation", "(AFIB"),
    ("Training_set_II/data_55_1", "persistent atrial fibrillation", "(AFIB"),
)


def write_dummy(folder: Path) -> None:
    """Three recordings of 25 s with beats, and a rhythm from the twelfth second on."""
    for (path, label, rhythm), ecg_uv in zip(EXAMPLES, dummy_ecgs(3, n_samples=12_500), strict=True):
        samples = np.rint(resample_poly(ecg_uv[:, :2].astype(float), 2, 5, axis=0)).astype(np.int16)
        write_wfdb(folder / path, samples, rate_hz=200, gain="1000(0)/mV", leads=("I", "II"), comments=(f"# {label}",))
        beats = np.arange(100, 5000, 160)
        marks = sorted([*((int(beat), "N", "") for beat in beats), (2400, "+", rhythm)])
        wfdb.wrann(
            Path(path).name,
            "atr",
            np.array([sample for sample, _, _ in marks]),
            [symbol for _, symbol, _ in marks],
            aux_note=[note for _, _, note in marks],
            write_dir=str((folder / path).parent),
        )


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
