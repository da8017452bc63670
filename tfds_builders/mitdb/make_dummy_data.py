"""Writes a small MIT-BIH Arrhythmia Database in its native layout.

python -m tfds_builders.mitdb.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import resample_poly

from tfds_builders.common.dummy import dummy_ecgs

EXAMPLES = (("100", ["MLII", "V5"], "69 M 1085 1629 x1"), ("201", ["MLII", "V1"], "68 M 1960 2851 x1"))


def write_dummy(folder: Path) -> None:
    """Two recordings of 20 s (in truth half an hour), in format 212, with beats."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, leads, comment), ecg_uv in zip(EXAMPLES, dummy_ecgs(2, n_samples=10_000), strict=True):
        signal_mv = resample_poly(ecg_uv[:, [1, 10]] / 1000.0, 18, 25, axis=0)
        wfdb.wrsamp(
            name,
            fs=360,
            units=["mV", "mV"],
            sig_name=leads,
            p_signal=signal_mv,
            fmt=["212", "212"],
            adc_gain=[200.0, 200.0],
            baseline=[1024, 1024],
            comments=[comment],
            write_dir=str(folder),
        )
        beats = np.arange(300, 7200, 290)
        symbols, notes = ["+", *(["N"] * len(beats))], ["(N", *([""] * len(beats))]
        wfdb.wrann(name, "atr", np.array([18, *beats]), symbols, aux_note=notes, write_dir=str(folder))


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
