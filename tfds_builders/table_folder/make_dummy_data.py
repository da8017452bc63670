"""Writes a small cohort of a user's own: a table, WFDB records, and the file that declares them.

python -m tfds_builders.table_folder.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tfds_builders.common.dummy import dummy_ecgs, write_csv, write_wfdb

DECLARATION = """\
name: my_hospital
licence: internal, ethics vote 12/2024
access: private
table: ecgs.csv
label_vocabulary: snomed
columns:
  path: file
  record: ecg_no
  patient: patient_no
  age: age_at_ecg
  sex: sex
  report: findings
  labels: codes
  measurements: [qrs_duration_ms]
female: [W]
male: [M]
"""
COLUMNS = ("ecg_no", "patient_no", "file", "age_at_ecg", "sex", "findings", "codes", "qrs_duration_ms")
ROWS = (
    ("17", "P1", "ecgs/0017.hea", "63", "W", "Sinusrhythmus, Linksschenkelblock.", "426783006;164909002", "148"),
    ("18", "P1", "ecgs/0018.hea", "64", "W", "Vorhofflimmern.", "164889003", ""),
    ("19", "P2", "ecgs/0019.hea", "41", "M", "Normales EKG.", "", "92"),
)


def write_dummy(folder: Path) -> None:
    """Three recordings of two people."""
    for (_, _, file, *_), ecg_uv in zip(ROWS, dummy_ecgs(len(ROWS)), strict=True):
        write_wfdb((folder / file).with_suffix(""), ecg_uv, rate_hz=500, gain="1000/mV")
    write_csv(folder / "ecgs.csv", COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in ROWS])
    (folder / "cohort.yaml").write_text(DECLARATION, encoding="utf-8")


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
