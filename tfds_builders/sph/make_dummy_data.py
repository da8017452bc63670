"""Writes a small SPH in its native layout.

python -m tfds_builders.sph.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from tfds_builders.common.dummy import dummy_ecgs, write_csv

COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "N", "Date")
EXAMPLES = (
    ("A00001", "22;23", "S00001", "55", "M", "5000", "2020-03-04"),
    ("A00002", "1", "S00002", "32", "F", "6000", "2019-09-03"),
    ("A00003", "60+341;106", "S00002", "32", "F", "5000", "2019-09-04"),
)


def write_record(path: Path, ecg_mv: np.ndarray) -> None:
    """One recording as SPH stores it: leads by time, half precision, mV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", data=ecg_mv.astype(np.float16), compression="gzip")


def write_dummy(folder: Path) -> None:
    """Three recordings of two people, and the table."""
    rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in EXAMPLES]
    for number, row in enumerate(rows):
        (ecg_uv,) = dummy_ecgs(1, n_samples=int(row["N"]), seed=number)
        write_record(folder / "records" / f"{row['ECG_ID']}.h5", ecg_uv.T / 1000.0)
    write_csv(folder / "metadata.csv", COLUMNS, rows)


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
