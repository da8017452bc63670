"""Writes a small CODE-15 % in its native layout.

python -m tfds_builders.code15.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from scipy.signal import resample_poly

from tfds_builders.common.dummy import dummy_ecgs, write_csv

COLUMNS = (
    "exam_id", "age", "is_male", "nn_predicted_age", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "patient_id", "death",
    "timey", "normal_ecg", "trace_file",
)  # fmt: skip
SAMPLES = 4096
"""Every tracing, zeros included."""
EXAMPLES = (
    ("1169160", "38", "True", "40.1", *("False",) * 6, "523632", "False", "2.098628", "True", "exams_part0.hdf5"),
    ("2873686", "73", "True", "67.0", "True", *("False",) * 4, "True", "1724173", "True", "6.657529", "False",
     "exams_part0.hdf5"),
    ("168405", "67", "False", "79.6", *("False",) * 6, "51421", "", "", "True", "exams_part1.hdf5"),
)  # fmt: skip


def tracing_mv(seconds: float, seed: int) -> np.ndarray:
    """A tracing at 400 Hz in the middle of zeros, `[4096, 12]`."""
    (ecg_uv,) = dummy_ecgs(1, n_samples=int(500 * seconds), seed=seed)
    signal = resample_poly(ecg_uv / 1000.0, 4, 5, axis=0)
    before = (SAMPLES - len(signal)) // 2
    return np.pad(signal, ((before, SAMPLES - len(signal) - before), (0, 0))).astype(np.float32)


def write_part(path: Path, exams: dict[int, np.ndarray]) -> None:
    """One file: ids, tracings, and the row of zeros with id 0 that every part ends in."""
    with h5py.File(path, "w") as file:
        file.create_dataset("exam_id", data=np.array([*exams, 0], np.int64))
        tracings = np.stack([*exams.values(), np.zeros((SAMPLES, 12), np.float32)])
        file.create_dataset("tracings", data=tracings, compression="gzip")


def write_dummy(folder: Path) -> None:
    """Three exams in two files, in another order than in the table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "exams.csv", COLUMNS, [dict(zip(COLUMNS, cells, strict=True)) for cells in EXAMPLES])
    write_part(folder / "exams_part0.hdf5", {2873686: tracing_mv(7, 1), 1169160: tracing_mv(10, 2)})
    write_part(folder / "exams_part1.hdf5", {168405: tracing_mv(7, 3)})


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
