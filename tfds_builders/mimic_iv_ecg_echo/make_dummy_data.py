"""Writes a small MIMIC-IV-ECG with an echocardiogram near every ECG, in the native layout.

python -m tfds_builders.mimic_iv_ecg_echo.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tfds_builders.common.dummy import write_csv
from tfds_builders.mimic_iv_ecg.make_dummy_data import Study, write_lookalike

COLUMNS: Final = (
    "subject_id", "measurement_id", "measurement_datetime", "test_type", "measurement", "measurement_description",
    "result", "unit",
)  # fmt: skip
EXAMPLES: Final[Sequence[Mapping[str, str]]] = (
    {"lvef": "35", "rv_function": "Severe global hypo", "tr_velocity": "3.4", "height_cm": "170"},
    {"lvef": "55-60", "rv_function": "Nl RV function", "pericardial_effusion": "Trivial"},
    {"tapse": "1.9", "pericardial_effusion": "Moderate (1.0-2.0cm)"},
)
"""Results of one study each, in the wordings that public code reads."""


def echo_rows(
    study: Study, gap_days: float, results: Mapping[str, str], measurement_id: str, test_type: str = "tte"
) -> list[dict[str, str]]:
    """Rows of one echo so many days after an ECG."""
    time = datetime.fromisoformat(study.record_row()["ecg_time"]) + timedelta(days=gap_days)
    shared = {
        "subject_id": study.subject_id,
        "measurement_id": measurement_id,
        "measurement_datetime": time.isoformat(sep=" "),
        "test_type": test_type,
    }
    return [shared | {"measurement": name, "result": result} for name, result in results.items()]


def write_echo(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """MIMIC-IV-ECHO's table of measurements."""
    write_csv(folder / "structured-measurement.csv", COLUMNS, rows)


def write_dummy(folder: Path) -> None:
    """Three ECGs and an echo two days after each."""
    studies = write_lookalike(folder, len(EXAMPLES))
    pairs = zip(studies, EXAMPLES, strict=True)
    write_echo(folder, [row for study, results in pairs for row in echo_rows(study, 2, results, f"m{study.number}")])


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
