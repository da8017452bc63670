"""Writes a small CPSC 2018 in its native form.

python -m tfds_builders.cpsc2018.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tfds_builders.common.dummy import dummy_ecgs, write_csv

EXAMPLES: tuple[tuple[str, str, Any, tuple[str, ...]], ...] = (
    ("A0001", "Male", 74, ("5",)),
    ("A0002", "Female", 49, ("1",)),
    ("A0608", "Male", np.nan, ("2", "5", "8")),
)
"""Name, sex, age and labels; A0608's age is not a number in the cohort, too."""


def write_struct(path: Path, ecg_mv: np.ndarray, sex: str, age: Any) -> None:
    """One MATLAB struct as CPSC writes it: leads by samples, millivolts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"ECG": {"sex": sex, "age": age, "data": ecg_mv}}, do_compression=True)


def write_dummy(folder: Path) -> None:
    """Three recordings of 6, 10 and 12 s, and REFERENCE.csv."""
    rows = []
    for (name, sex, age, labels), seconds in zip(EXAMPLES, (6, 10, 12), strict=True):
        (ecg_uv,) = dummy_ecgs(1, n_samples=500 * seconds, seed=seconds)
        write_struct(folder / "TrainingSet" / f"{name}.mat", ecg_uv.T / 1000.0, sex, age)
        rows.append(
            {"Recording": name} | dict(zip(("First_label", "Second_label", "Third_label"), labels, strict=False))
        )
    write_csv(
        folder / "TrainingSet" / "REFERENCE.csv", ("Recording", "First_label", "Second_label", "Third_label"), rows
    )


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
