"""Writes a small cohort of a user's own WFDB records, and the file that declares it.

python -m tfds_builders.wfdb_folder.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

DECLARATION = """\
name: my_records
licence: internal
label_vocabulary: snomed
label_separator: ","
comments:
  patient: folder
  report: findings
"""
EXAMPLES = (
    ("p1/a", "63", "F", "426783006,164909002", "Sinus rhythm, left bundle branch block."),
    ("p1/b", "64", "F", "164889003", "Atrial fibrillation."),
    ("p2/a", "41", "M", "", "Normal ECG."),
)


def write_dummy(folder: Path) -> None:
    """Three recordings of two people."""
    for (path, age, sex, dx, findings), ecg_uv in zip(EXAMPLES, dummy_ecgs(len(EXAMPLES)), strict=True):
        comments = (f"# Age: {age}", f"# Sex: {sex}", f"# Dx: {dx}", f"# Findings: {findings}")
        write_wfdb(folder / path, ecg_uv, rate_hz=500, gain="1000/mV", comments=comments)
    (folder / "cohort.yaml").write_text(DECLARATION, encoding="utf-8")


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
