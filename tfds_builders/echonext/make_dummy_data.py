"""Writes a small EchoNext in its native layout.

python -m tfds_builders.echonext.make_dummy_data FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tfds_builders.common.dummy import dummy_ecgs, write_csv
from tfds_builders.echonext.cohort import (
    COMPOSITE,
    CONSTANTS,
    FLAGS,
    MEASURED,
    TABLES,
    UV_PER_UNIT,
    features,
    waveforms,
)

COLUMNS: Final = (
    "", "ecg_key", "patient_key", "acquisition_year", "location_setting", "race_ethnicity", "split", "sex",
    "age_at_ecg", *MEASURED, *FLAGS,
)  # fmt: skip
MEAN: Final = np.linspace(-5.0, 5.0, 12)
SD: Final = np.linspace(26.0, 57.0, 12)
"""Made up; the authors' are of this size."""
EXAMPLES: Final = (("train", ("lvef_lte_45_flag",)), ("val", ()), ("test", ("pasp_gte_45_flag", "tr_max_gte_32_flag")))


def row_of(number: int, split: str, flags: Sequence[str]) -> dict[str, str]:
    """A row of the table; patient, age and measurements follow from its number."""
    raised = {*flags, *((COMPOSITE,) if flags else ())}
    measured = dict(zip(MEASURED, (70 + number, 70 + number, 160, 90, 430, 55, 1.0, 0.9, 30, 2.5), strict=True))
    return {
        "": str(number),
        "ecg_key": f"e{number}",
        "patient_key": f"p{number}",
        "acquisition_year": "2015",
        "location_setting": "outpatient",
        "race_ethnicity": "unknown",
        "split": split,
        "sex": str(number % 2),
        "age_at_ecg": str(50 + 3 * number % 41),
        **{column: str(value) for column, value in measured.items()},
        **{flag: str(int(flag in raised)) for flag in FLAGS},
    }


def write_table(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """The table and, per split, the arrays in its order: tracings at 250 Hz as z-scores, and features."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / TABLES[0], COLUMNS, rows)
    constants = {"mean": MEAN.tolist(), "std": SD.tolist(), "lowerbound": [-500.0] * 12, "upperbound": [500.0] * 12}
    (folder / CONSTANTS).write_text(json.dumps(constants))
    z = (dummy_ecgs(len(rows))[:, ::2] / UV_PER_UNIT - MEAN) / SD
    tabular = np.array([[float(row[c] or "nan") for c in ("sex", "age_at_ecg", *list(MEASURED)[:5])] for row in rows])
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row["split"] == split for row in rows]
        np.save(folder / waveforms(split), z[chosen][:, None])
        np.save(folder / features(split), (tabular[chosen] - 50.0) / 10.0)


def write_dummy(folder: Path) -> None:
    """One ECG per split."""
    write_table(folder, [row_of(number, *example) for number, example in enumerate(EXAMPLES)])


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
