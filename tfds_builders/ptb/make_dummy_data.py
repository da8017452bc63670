"""Writes a small PTB Diagnostic ECG Database in its native layout.

python -m tfds_builders.ptb.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.dummy import dummy_ecgs, write_wfdb

LEADS = (*(lead.lower() for lead in LEADS_12), "vx", "vy", "vz")
EXAMPLES = (
    ("patient001/s0010_re", "81", "female", "Myocardial infarction", "infero-latera", "Diabetes mellitus", "no",
     "140/80 mmHg"),
    ("patient001/s0014lre", "81", "female", "Myocardial infarction", "infero-latera", "Diabetes mellitus", "no", "n/a"),
    ("patient104/s0306lre", "n/a", "male", "Healthy control", "no", "no", "unknown", "n/a"),
)  # fmt: skip


def _comments(
    age: str, sex: str, reason: str, acute: str, additional: str, smoker: str, pressure: str
) -> tuple[str, ...]:
    return (
        f"# age: {age}",
        f"# sex: {sex}",
        "# ECG date: 01/10/1990",
        "",
        "# Diagnose:",
        f"# Reason for admission: {reason}",
        f"# Acute infarction (localization): {acute}",
        "# Former infarction (localization): no",
        f"# Additional diagnoses: {additional}",
        f"# Smoker: {smoker}",
        "",
        "# Hemodynamics:",
        f"# Peripheral blood Pressure (syst/diast):  {pressure}",
    )


def write_dummy(folder: Path) -> None:
    """Three recordings of two people, five seconds long (in truth up to two minutes)."""
    for (path, *facts), ecg_uv in zip(EXAMPLES, dummy_ecgs(len(EXAMPLES), n_samples=2500), strict=True):
        standard = resample_poly(ecg_uv * 2.0, 2, 1, axis=0)  # 2000 units per mV at 1000 Hz
        samples = np.rint(np.column_stack([standard, standard[:, 6:9]])).astype(np.int16)
        write_wfdb(folder / path, samples, rate_hz=1000, gain="2000", leads=LEADS, comments=_comments(*facts))


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
