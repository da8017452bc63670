"""Writes a small LUDB in its native layout.

python -m tfds_builders.ludb.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import wfdb

from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

COMMENTS = (
    ("#<age>: 51", "#<sex>: F", "#<diagnoses>:", "#Rhythm: Sinus bradycardia.", "#Left ventricular hypertrophy. "),
    ("#<age>: >89", "#<sex>: M", "#<diagnoses>:", "#Rhythm: Sinus rhythm.", "#Electric axis of the heart: normal."),
)
WAVES = ((-60, "("), (-40, "p"), (-20, ")"), (-10, "("), (0, "N"), (12, ")"), (100, "("), (140, "t"), (180, ")"))
"""Samples from an R peak, and what is marked there."""


def write_dummy(folder: Path) -> None:
    """Two recordings with waves marked around a few beats of every lead."""
    data = folder / "data"
    for number, (comments, ecg_uv) in enumerate(zip(COMMENTS, dummy_ecgs(2), strict=True), start=1):
        leads = [lead.lower() for lead in LEADS_12]
        write_wfdb(data / str(number), ecg_uv, rate_hz=500, gain="1000(0)/mV", leads=leads, comments=comments)
        for shift, lead in enumerate(leads):
            marks = [(1000 * beat + shift + offset, symbol) for beat in (1, 2, 3) for offset, symbol in WAVES]
            samples = np.array([sample for sample, _ in marks])
            wfdb.wrann(str(number), "lead", samples, [symbol for _, symbol in marks], write_dir=str(data))
            (data / f"{number}.lead").rename(data / f"{number}.{lead}")  # wfdb writes no extension with a digit


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
