"""The real records at hand in the layout in which their cohorts are published, so that builders take them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float
from scipy.io import loadmat

from tfds_builders.code15.make_dummy_data import COLUMNS as CODE15_COLUMNS
from tfds_builders.common.dummy import write_csv

CPSC2018_NAMES = ("A1980", "A1981", "A1982", "A1983")
CPSC2018_COLUMNS = ("Recording", "First_label", "Second_label", "Third_label")


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def cpsc2018(shared: Path, folder: Path) -> Path:
    """Four of its structs, with their rows of the reference."""
    by_name = {row["Recording"]: row for row in cpsc2018_reference(shared)}
    write_csv(folder / "TrainingSet" / "REFERENCE.csv", CPSC2018_COLUMNS, [by_name[name] for name in CPSC2018_NAMES])
    for name in CPSC2018_NAMES:
        shutil.copy(shared / "cpsc2018" / "TrainingSet" / f"{name}.mat", folder / "TrainingSet")
    return folder


def cpsc2018_reference(shared: Path) -> list[dict[str, str]]:
    """Its labels as published."""
    return table(shared / "metadata_only" / "cpsc2018" / "REFERENCE_with_reports.csv")


def ludb(shared: Path, folder: Path) -> Path:
    """Its first ten records, whose files are all at hand."""
    (folder / "data").mkdir(parents=True)
    for number in range(1, 11):
        for path in (shared / "ludb" / "data").glob(f"{number}.*"):
            shutil.copy(path, folder / "data")
    return folder


def sph(shared: Path, folder: Path) -> Path:
    """Its records under their published names, and their rows of the table."""
    (folder / "records").mkdir(parents=True)
    for path in (shared / "sph" / "records").glob("*.h5"):
        shutil.copy(path, folder / "records" / f"A{path.stem.removeprefix('SPH')}.h5")
    there = {path.stem for path in (folder / "records").iterdir()}
    rows = table(shared / "sph" / "metadata_with_intervals.csv")
    write_csv(folder / "metadata.csv", list(rows[0]), [row for row in rows if row["ECG_ID"] in there])
    return folder


def code15(shared: Path, folder: Path) -> Path:
    """Exams that ECG-FM's authors had taken out of their file, put back: zeros around them, another order, a filler."""
    rows = [row | {"trace_file": "exams_part0.hdf5"} for row in table(shared / "code15" / "meta.csv")]
    write_csv(folder / "exams.csv", CODE15_COLUMNS, rows)
    exams = {
        row["exam_id"]: loadmat(shared / "code15" / "org" / f"code_15_{row['exam_id']}.mat")["feats"].T
        for row in reversed(rows)
    }
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = np.array([*map(int, exams), 0])
        file["tracings"] = np.stack([*map(_with_zeros, exams.values()), np.zeros((4096, 12), np.float32)])
    return folder


def _with_zeros(signal_mv: Float[np.ndarray, "samples 12"]) -> Float[np.ndarray, "4096 12"]:
    missing = 4096 - len(signal_mv)
    return np.pad(signal_mv, ((missing // 2, missing - missing // 2), (0, 0))).astype(np.float32)


REAL_SOURCES: Mapping[str, Callable[[Path, Path], Path]] = {
    "challenge2021": lambda shared, _: shared / "challenge-2021",
    "ludb": ludb,
    "cpsc2018": cpsc2018,
    "cpsc2021": lambda shared, _: shared / "cpsc2021",
    "code15": code15,
    "sph": sph,
    "ptb": lambda shared, _: shared / "ptbdb",
    "mitdb": lambda shared, _: shared / "mitdb",
}
"""Without PTB-XL, which has tests of its own: cohort → (shared data, empty folder) → what its builder takes."""
