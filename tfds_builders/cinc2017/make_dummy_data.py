"""Writes a small Challenge 2017 in its native layout.

python -m tfds_builders.cinc2017.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

EXAMPLES = (("A00001", "N", 30), ("A00004", "A", 30), ("A00205", "~", 9))
"""Name, class and length in seconds."""


def write_dummy(folder: Path) -> None:
    """Three recordings and the table."""
    for name, _, seconds in EXAMPLES:
        (ecg_uv,) = dummy_ecgs(1, n_samples=500 * seconds, seed=seconds)
        samples = np.rint(resample_poly(ecg_uv[:, :1].astype(float), 3, 5, axis=0)).astype(np.int16)
        line = "{name} {leads} {rate} {samples} 05:05:15 1/05/2000"
        path = folder / "training2017" / name
        write_wfdb(path, samples, rate_hz=300, gain="1000/mV", leads=("ECG",), record_line=line, mat=True)
    lines = [f"{name},{label}" for name, label, _ in EXAMPLES]
    (folder / "REFERENCE-v3.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
