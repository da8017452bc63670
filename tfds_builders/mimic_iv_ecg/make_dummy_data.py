"""Writes a MIMIC-IV-ECG look-alike of any size in the exact native layout: for tests, for the proof, for `dummy_data/`.

python -m tfds_builders.mimic_iv_ecg.make_dummy_data FOLDER [RECORDS]

Everything in it is made up. Some things are wrong in known numbers, so that a build of it can be held to account.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int16

from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.dummy import dummy_ecgs, write_csv, write_wfdb

LEADS: Final = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
"""In the order of MIMIC-IV-ECG's files."""
RECORD_COLUMNS: Final = ("subject_id", "study_id", "file_name", "ecg_time", "path")
MACHINE_COLUMNS: Final = (
    "subject_id", "study_id", "cart_id", "ecg_time", *(f"report_{i}" for i in range(18)), "bandwidth", "filtering",
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis",
)  # fmt: skip
EVERY_TRUNCATED, EVERY_GAP, EVERY_UNMEASURED, EVERY_EMPTY = 500, 50, 20, 100
"""Every so many records: a `.dat` cut short (dropped), missing samples, 29999, no statement at all."""

_STUDIES_PER_SUBJECT: Final = 5
_MISSING: Final = -32768
_REPORTS: Final = (
    ("Sinus rhythm", "Possible right atrial abnormality", "", "Borderline ECG"),
    ("Atrial fibrillation with rapid ventricular response", "", "Abnormal ECG"),
    ("Sinus bradycardia.", "Left  axis deviation", "Left ventricular hypertrophy", "", "Summary: abnormal ECG"),
    ("Sinus rhythm.", "Normal ECG."),
    ("Sinus tachycardia", "Right bundle branch block", "", "Abnormal ECG"),
)


@dataclass(frozen=True, slots=True)
class Study:
    """One made-up ECG; `number` counts from 0."""

    number: int
    layout: str = "1.0"

    @property
    def subject_id(self) -> str:
        """Five studies each."""
        return str(10_000_032 + 37 * (self.number // _STUDIES_PER_SUBJECT))

    @property
    def study_id(self) -> str:
        """Unique, as in the cohort."""
        return str(40_689_238 + self.number)

    @property
    def path(self) -> str:
        """As `record_list.csv` has it."""
        level = f"p{self.subject_id[:4]}/" if self.layout == "1.0" else ""
        return f"files/{level}p{self.subject_id}/s{self.study_id}/{self.study_id}"

    @property
    def is_truncated(self) -> bool:
        """Its signal file is cut short."""
        return self.number % EVERY_TRUNCATED == EVERY_TRUNCATED - 1

    @property
    def has_gap(self) -> bool:
        """Some samples of one lead are missing."""
        return self.number % EVERY_GAP == 7

    @property
    def is_measured(self) -> bool:
        """Its measurements are numbers, not 29999."""
        return self.number % EVERY_UNMEASURED != 3

    @property
    def report(self) -> Sequence[str]:
        """Cells of `report_0` and on."""
        return () if self.number % EVERY_EMPTY == 11 else _REPORTS[self.number % len(_REPORTS)]

    def record_row(self) -> dict[str, str]:
        """Its row of `record_list.csv`."""
        time = f"21{self.number % 80 + 10}-07-23 08:{self.number % 60:02d}:00"
        cells = (self.subject_id, self.study_id, self.study_id, time, self.path)
        return dict(zip(RECORD_COLUMNS, cells, strict=True))

    def machine_row(self) -> dict[str, str]:
        """Its row of `machine_measurements.csv`."""
        numbers = (659, 40, 128, 170, 258, 518, 81, 77, 79)
        cells = [str(n + self.number % 7) if self.is_measured else "29999" for n in numbers]
        return {
            **self.record_row(),
            "cart_id": str(6_848_296 + self.number % 9),
            **{f"report_{i}": text for i, text in enumerate(self.report)},
            "bandwidth": "0.005-150 Hz",
            "filtering": "60 Hz notch Baseline filter",
            **dict(zip(MACHINE_COLUMNS[-9:], cells, strict=True)),
        }


class _Recordings:
    """Waveforms by number: windows into a few long rhythms plus windows into a noise bank, so that one costs 0.2 ms."""

    _N_RHYTHMS, _LONG = 12, 15_000

    def __init__(self) -> None:
        order = [LEADS_12.index(lead) for lead in LEADS]
        rhythms_uv = dummy_ecgs(self._N_RHYTHMS, n_samples=self._LONG)[:, :, order]
        self._rhythms = (rhythms_uv // 5).astype(np.int16)  # 5 µV per unit: 200 units per mV
        self._noise = np.random.default_rng(1).integers(-2, 3, (4 * self._LONG, len(LEADS)), np.int16)

    def __getitem__(self, study: Study) -> Int16[np.ndarray, "5000 12"]:
        start = study.number * 641 % (self._LONG - 5000)
        from_noise = study.number * 7919 % (len(self._noise) - 5000)
        rhythm = self._rhythms[study.number % self._N_RHYTHMS, start : start + 5000]
        samples: Int16[np.ndarray, "5000 12"] = rhythm + self._noise[from_noise : from_noise + 5000]
        if study.has_gap:
            samples[1000:1100, 5] = _MISSING
        return samples


def write_lookalike(folder: Path, n_records: int, *, layout: str = "1.0") -> list[Study]:
    """A whole cohort in the layout of `1.0` or of the `demo`; returns its studies in the tables' order."""
    studies = [Study(number, layout) for number in range(n_records)]
    write_csv(folder / "record_list.csv", RECORD_COLUMNS, [study.record_row() for study in studies])
    # In another order than the study list: who joins by position is wrong at once.
    write_csv(
        folder / "machine_measurements.csv", MACHINE_COLUMNS, [study.machine_row() for study in reversed(studies)]
    )
    for study in _with_signals(folder, studies):
        if study.is_truncated:
            path = folder / f"{study.path}.dat"
            path.write_bytes(path.read_bytes()[:-1000])
    return studies


def _with_signals(folder: Path, studies: Sequence[Study]) -> Iterator[Study]:
    recordings = _Recordings()
    for study in studies:
        write_wfdb(
            folder / study.path,
            recordings[study],
            rate_hz=500,
            gain="200.0(0)/mV",
            leads=LEADS,
            record_line="{name} {leads} {rate} {samples} 08:44:00 23/07/2180",
            comments=(f"# <subject_id>: {study.subject_id}",),
        )
        yield study


if __name__ == "__main__":
    write_lookalike(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
