"""MIMIC-IV-ECG's tables, and those of other projects that a user may have laid beside them, as one row per study."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from tfds_builders.common.cohort import BuildError
from tfds_builders.common.joins import add_columns, joint_sha256
from tfds_builders.common.metadata import MetadataTable, read_csv, sha256_of

RECORDS, MACHINE = "record_list.csv", "machine_measurements.csv"
ICD, PATIENTS, ECHO = "records_w_diag_icd10.csv", "patients.csv", "structured-measurement.csv"
"""Tables of the credentialed projects MIMIC-IV-ECG-Ext-ICD, MIMIC-IV (hosp) and MIMIC-IV-ECHO."""
REPORTS = tuple(f"report_{i}" for i in range(18))
INTERVALS = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
AXES = ("p_axis", "qrs_axis", "t_axis")
_MACHINE_COLUMNS = ("cart_id", *REPORTS, "bandwidth", "filtering", *INTERVALS, *AXES)
_ICD_COLUMNS = ("gender", "age", "strat_fold")
_PATIENT_COLUMNS = ("gender", "anchor_age", "anchor_year")
_WHERE = "https://physionet.org/content/mimic-iv-ecg/1.0/"
SECONDS_PER_DAY = 86400.0
_NUMBER_OR_RANGE = re.compile(r"\s*[<>]?=?\s*(?P<low>\d+(?:\.\d+)?)(?:\s*-\s*(?P<high>\d+(?:\.\d+)?))?\s*%?\s*")


def joined(source: Path, machine_measurements: bool, icd_column: str, echo_window_days: float | None) -> MetadataTable:
    """The study list with everything else that lies in `source`, joined on `study_id` (patients on `subject_id`).

    Args:
      echo_window_days: how far the echo with the LVEF may lie from the ECG; None joins no echo.

    Raises:
      BuildError: if a table of MIMIC-IV-ECG is missing, or tables do not belong together.
    """
    _require(source, (RECORDS, MACHINE) if machine_measurements else (RECORDS,))
    studies = read_csv(source / RECORDS, ("subject_id", "study_id", "ecg_time", "path"))
    table, sums = studies.table, [studies.sha256]
    if machine_measurements:
        machine = read_csv(source / MACHINE, ("subject_id", "study_id", *_MACHINE_COLUMNS))
        table = add_columns(table, _same_subjects(table, machine), "study_id", _MACHINE_COLUMNS, MACHINE)
        sums.append(machine.sha256)
    if (source / ICD).is_file():
        icd = read_csv(source / ICD, ("study_id", icd_column, *_ICD_COLUMNS))
        renamed = icd.table.select(["study_id", icd_column, *_ICD_COLUMNS])
        renamed = renamed.rename_columns(["study_id", "icd_codes", *(f"icd_{name}" for name in _ICD_COLUMNS)])
        columns = tuple(name for name in renamed.column_names if name != "study_id")
        table = add_columns(table, renamed, "study_id", columns, ICD)
        sums.append(icd.sha256)
    if (source / PATIENTS).is_file():
        patients = read_csv(source / PATIENTS, ("subject_id", *_PATIENT_COLUMNS))
        table = add_columns(table, patients.table, "subject_id", _PATIENT_COLUMNS, PATIENTS)
        sums.append(patients.sha256)
    if echo_window_days is not None and (echo := echo_file(source)) is not None:
        table = _add_nearest_lvef(table, _lvef(echo), echo_window_days)
        sums.append(sha256_of(echo))
    return MetadataTable(table, studies.malformed, joint_sha256(sums))


def has_credentialed_tables(source: Path) -> bool:
    """Whether a table in `source` comes from a credentialed project; what is built is then credentialed, too."""
    return any((source / name).is_file() for name in (ICD, PATIENTS)) or echo_file(source) is not None


def echo_file(source: Path) -> Path | None:
    """MIMIC-IV-ECHO's table of measurements, packed or not; None where it is not in `source`."""
    return next((path for name in (ECHO, f"{ECHO}.gz") if (path := source / name).is_file()), None)


def _require(source: Path, names: tuple[str, ...]) -> None:
    if missing := [name for name in (*names, "files") if not (source / name).exists()]:
        raise BuildError(
            f"{source} lacks {', '.join(missing)} of MIMIC-IV-ECG 1.0; --source must name the folder that holds "
            f"{', '.join((*names, 'files'))}. Get it from {_WHERE} (open access, ODbL; about 90 GB: "
            "wget -r -N -c -np, it is never downloaded from here). The demo 0.1 has no machine measurements: "
            "add --no-machine-measurements for it"
        )


def _same_subjects(studies: pa.Table, machine: MetadataTable) -> pa.Table:
    """The machine's table, if every study in it belongs to the same subject as in the study list."""
    partner = pc.index_in(studies["study_id"].combine_chunks(), value_set=machine.table["study_id"].combine_chunks())
    theirs = machine.table["subject_id"].combine_chunks().take(partner)
    differ = pc.fill_null(pc.not_equal(theirs, studies["subject_id"].combine_chunks()), False)
    if wrong := pc.sum(differ).as_py() or 0:
        example = studies["study_id"].combine_chunks().filter(differ)[0].as_py()
        raise BuildError(
            f"{MACHINE} gives {wrong} studies, {example} among them, to other subjects than {RECORDS} does; "
            "the two tables belong to different versions, or one was edited"
        )
    return machine.table


def transthoracic(path: Path, measurements: Collection[str]) -> Iterator[dict[str, str]]:
    """Rows of MIMIC-IV-ECHO's table about these measurements of transthoracic studies: `subject_id`,
    `measurement_datetime`, `measurement` (lower case) and `result`.

    Raises:
      BuildError: if it is another table.
    """
    wanted = ["subject_id", "measurement_datetime", "test_type", "measurement", "result"]
    options = pa_csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
    names = pa.array(sorted(measurements), pa.string())
    try:
        with pa_csv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                named = pc.is_in(pc.utf8_lower(batch["measurement"]), value_set=names)
                seen = pc.equal(pc.utf8_lower(batch["test_type"]), "tte")
                for row in batch.filter(pc.and_(named, seen)).to_pylist():
                    if row["result"]:
                        yield row | {"measurement": row["measurement"].lower()}
    except (pa.ArrowInvalid, KeyError) as error:
        raise BuildError(
            f"{path.name}: expected MIMIC-IV-ECHO's table with the columns {', '.join(wanted)}: {error}"
        ) from error


def echo_number(result: str) -> float | None:
    """A measured number, or the middle of a range such as `55-60%`, which visual estimates are; None for words."""
    match = _NUMBER_OR_RANGE.fullmatch(result)
    if match is None:
        return None
    low = float(match["low"])
    return low if match["high"] is None else (low + float(match["high"])) / 2


def _lvef(path: Path) -> dict[str, list[tuple[float, str]]]:
    """By subject: time in s and LVEF in percent of every transthoracic study that has one, in the order of time."""
    found: dict[str, list[tuple[float, str]]] = {}
    for row in transthoracic(path, {"lvef"}):
        time_s, percent = seconds(row["measurement_datetime"] or ""), echo_number(row["result"])
        if time_s is not None and percent is not None:
            found.setdefault(row["subject_id"], []).append((time_s, f"{percent:g}"))
    return {subject: sorted(studies) for subject, studies in found.items()}


def _add_nearest_lvef(table: pa.Table, lvef: dict[str, list[tuple[float, str]]], window_days: float) -> pa.Table:
    """Adds `echo_lvef` and `echo_gap_days` (echo minus ECG) of the echo nearest in time, if within the window."""
    values, gaps = [], []
    for subject, ecg_time in zip(table["subject_id"].to_pylist(), table["ecg_time"].to_pylist(), strict=True):
        value, gap_days = nearest(lvef.get(subject, []), seconds(ecg_time), window_days)
        values.append(value)
        gaps.append(gap_days)
    table = table.append_column("echo_lvef", pa.array(values, pa.string()))
    return table.append_column("echo_gap_days", pa.array(gaps, pa.string()))


def nearest(studies: list[tuple[float, str]], ecg_s: float | None, window_days: float) -> tuple[str, str]:
    """Result and distance in days of the study nearest to the ECG, of two as near the earlier; empty if none."""
    if ecg_s is None or not studies:
        return "", ""
    after = bisect_left(studies, (ecg_s, ""))
    time_s, value = min(studies[max(after - 1, 0) : after + 1], key=lambda study: abs(study[0] - ecg_s))
    gap_days = (time_s - ecg_s) / SECONDS_PER_DAY
    return (value, f"{gap_days:.3f}") if abs(gap_days) <= window_days else ("", "")


def seconds(text: str) -> float | None:
    """A (shifted) date and time as seconds on a common axis; None if it is none."""
    try:
        return (datetime.fromisoformat(text) - datetime(1900, 1, 1)).total_seconds()
    except ValueError:
        return None
