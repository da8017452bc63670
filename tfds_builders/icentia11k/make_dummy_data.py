"""Writes a small Icentia11k in its native layout.

python -m tfds_builders.icentia11k.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
import wfdb

from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

EXAMPLES: Final = ("p00/p00000/p00000_s00", "p00/p00000/p00000_s01", "p07/p07178/p07178_s00")
RHYTHM_S: Final = ((2.0, "(N"), (14.0, ")"), (16.0, "(AFIB"), (48.0, ")"))
"""When rhythms begin and end."""


def write_dummy(folder: Path) -> None:
    """Three segments of 50 s (in truth 70 min) of two patients, at 250 Hz."""
    for path, ecg_uv in zip(EXAMPLES, dummy_ecgs(3, n_samples=25_000), strict=True):
        write_wfdb(folder / path, ecg_uv[::2, :1], rate_hz=250, gain="1000/mV", leads=("ecg",))
        marks = [(int(250 * time_s), "+", note) for time_s, note in RHYTHM_S]
        marks += [(sample, "S" if i % 7 == 3 else "N", "") for i, sample in enumerate(range(100, 12_400, 210))]
        marks.sort()
        wfdb.wrann(
            Path(path).name,
            "atr",
            np.array([sample for sample, _, _ in marks]),
            [symbol for _, symbol, _ in marks],
            aux_note=[note for _, _, note in marks],
            write_dir=str((folder / path).parent),
        )


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
