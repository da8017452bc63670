"""Writes a small HEEDB in its native layout, as published from 3.0 on.

python -m tfds_builders.heedb.make_dummy_data FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tfds_builders.common.dummy import dummy_ecgs, write_csv, write_wfdb

DICTIONARY: Final = {
    "19": "Normal sinus rhythm",
    "22": "Sinus bradycardia",
    "161": "Atrial fibrillation",
    "440": "Right bundle branch block",
    "1684": "Normal ECG",
}
"""Some codes and statements; the numbers are made up but for those that public code names."""
EXAMPLES: Final = (
    ("I0001", "S0001/1998/de_1001", "101", "Female", "19,1684", "19,1684", "19,1684"),
    ("I0001", "S0002/2011/de_1002", "102", "Male", "161,440", "161", "161,440"),
    ("I0006", "2010/MUSE_20191204_094914_19000", "201.0", "Male", "", "22,99", "22"),
)
"""Hospital, record, patient, sex, and codes of the physician, of the software and of 12SL v24."""
_AGE_DAYS: Final = "20000"


def write_hospital(folder: Path, hospital: str) -> None:
    """One hospital's tables, each of which spells the files in its own way."""
    rows = [example[1:] for example in EXAMPLES if example[0] == hospital]
    lead = "/" if hospital == "I0001" else "WFDB/"
    sex = "SexDSC" if hospital == "I0001" else "Sex"
    metadata = [
        {"FileName": lead + record, "BDSPPatientID": patient, sex: of, "AgeAtAcquisition": _AGE_DAYS}
        for record, patient, of, *_ in rows
    ]
    write_csv(folder / "metadata" / "metadata.csv", ("BDSPPatientID", sex, "AgeAtAcquisition", "FileName"), metadata)
    read = [
        {"FileName": lead + record, "codes_physician": physician, "codes_software": software}
        for record, _, _, physician, software, _ in rows
    ]
    diagnoses = folder / "12SL_diagnoses"
    write_csv(diagnoses / "diagnoses_acquisition.csv", ("FileName", "codes_physician", "codes_software"), read[::-1])
    again = [{"FileName": f"./{record}.hea\n", "codes": v24} for record, *_, v24 in rows]
    write_csv(diagnoses / "diagnoses_v24.csv", ("FileName", "codes"), again)
    words = [{"codes": code, "diagnoses": text} for code, text in DICTIONARY.items()]
    write_csv(diagnoses / "diagnoses_dictionary.csv", ("codes", "diagnoses"), words)


def write_signals(folder: Path) -> None:
    """`.mat` at 250 Hz and at 500 Hz for I0001, `.dat` for I0006."""
    for number, ((hospital, record, *_), ecg_uv) in enumerate(zip(EXAMPLES, dummy_ecgs(3), strict=True)):
        rate_hz = 250 if number == 0 else 500
        samples = ecg_uv[:: 500 // rate_hz]
        mat = hospital == "I0001"
        write_wfdb(folder / hospital / "WFDB" / record, samples, rate_hz=rate_hz, gain="1000(0)/mV", mat=mat)


def write_dummy(folder: Path) -> None:
    """Three ECGs of two hospitals."""
    for hospital in ("I0001", "I0006"):
        write_hospital(folder / hospital, hospital)
    write_signals(folder)


if __name__ == "__main__":
    write_dummy(Path(sys.argv[1]))
