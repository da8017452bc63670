"""Writes a small SaMi-Trop in its native layout.

python -m tfds_builders.sami_trop.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from tfds_builders.code15.make_dummy_data import tracing_mv
from tfds_builders.common.dummy import write_csv

COLUMNS = ("exam_id", "age", "is_male", "normal_ecg", "death", "timey", "nn_predicted_age")
EXAMPLES = (
    ("294669", "71", "False", "False", "False", "2.184", "74.9"),
    ("291209", "56", "True", "True", "True", "0.51", "60.2"),
)


def write_dummy(folder: Path) -> None:
    """Two exams; tracing i is row i."""
    write_csv(folder / "exams.csv", COLUMNS, [dict(zip(COLUMNS, cells, strict=True)) for cells in EXAMPLES])
    with h5py.File(folder / "exams.hdf5", "w") as file:
        tracings = np.stack([tracing_mv(7, seed) for seed in (1, 2)])
        file.create_dataset("tracings", data=tracings, compression="gzip")


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
