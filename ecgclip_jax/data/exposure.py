"""What a run has seen, record by record, and the question whether an evaluation set overlaps it.

Above the access class `open` original ids are replaced by keyed pseudonyms (HMAC-SHA256). The key lies in the data
directory, beside the cohorts, never in a run folder: whoever may read the data can check an overlap, and a run folder
that travels tells nothing. Waveform hashes stay as they are: ten seconds of microvolts cannot be guessed, and only who
holds the recording can recognise its hash; they let an overlap be found anywhere and under any cohort name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.spec.pseudonyms import make_key, pseudonym, read_key
from ecgclip_jax.text.shared_records import renamed

EXPOSURE_FILE = "exposure.parquet"
_SCHEMA = pa.schema(
    [
        ("cohort", pa.string()),
        ("version", pa.string()),
        ("split", pa.string()),
        ("record_id", pa.string()),
        ("patient_id", pa.string()),
        ("waveform_sha256", pa.string()),
        ("keyed", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Overlap:
    """Which rows of a split a run has seen: the recording itself, or another one of the same patient."""

    record: Bool[np.ndarray, " rows"]
    patient: Bool[np.ndarray, " rows"]
    ids_checked: bool
    """False where the run's ids are pseudonyms whose key is not in this data directory: only waveforms count."""


def write_exposure(index: RunIndex, folder: str | Path, before: str | Path | None = None) -> None:
    """Writes `exposure.parquet`: one row per record of the run; `patient_id` is null where unknown.

    `before` is the exposure file of a run whose weights this one starts with: what that one saw comes on top.
    """
    parts = [] if before is None else [pq.read_table(before, schema=_SCHEMA)]
    for number, cohort in enumerate(index.cohorts):
        rows = cohort.table.take(pa.array(index.shard_row[index.source == number]))
        keyed = cohort.access != "open"
        records, patients = _ids(cohort, rows, make_key(cohort.data_dir) if keyed else None)
        parts.append(
            pa.table(
                {
                    "cohort": [cohort.cohort] * len(records),
                    "version": [cohort.version] * len(records),
                    "split": [cohort.split] * len(records),
                    "record_id": records,
                    "patient_id": patients,
                    "waveform_sha256": rows.column("waveform_sha256"),
                    "keyed": [keyed] * len(records),
                },
                schema=_SCHEMA,
            )
        )
    pq.write_table(pa.concat_tables(parts), Path(folder) / EXPOSURE_FILE)


def find_overlap(exposure_file: str | Path, split: CohortSplit) -> Overlap:
    """Compares a split with what a run has seen: by waveform over all cohorts, by ids within the same cohort and with
    cohorts of which it is published that they hold the same recordings (`text.shared_records`).
    """
    exposure = pq.read_table(exposure_file)
    waveforms = set(exposure.column("waveform_sha256").to_pylist())
    seen = np.asarray([w in waveforms for w in split.table.column("waveform_sha256").to_pylist()], bool)
    patient = np.zeros(len(split), bool)
    ids_checked = True
    for cohort in pc.unique(exposure.column("cohort")).to_pylist():
        of_cohort = exposure.filter(pc.equal(exposure.column("cohort"), cohort))
        names = _names_in(split, cohort)
        if names is None:
            continue
        records, patients = names
        if any(of_cohort.column("keyed").to_pylist()):
            key = read_key(split.data_dir)
            ids_checked &= key is not None
            if key is None:
                continue
            records = _keyed(key, cohort, "record", records)
            patients = _keyed(key, cohort, "patient", patients)
        seen |= _among(records, of_cohort.column("record_id"))
        patient |= _among(patients, of_cohort.column("patient_id"))
    _, own_patients = _ids(split, split.table, None)
    of_seen = {p for p, was_seen in zip(own_patients, seen, strict=True) if was_seen} - {None}
    patient |= np.asarray([p in of_seen for p in own_patients], bool)  # known there under another name, or under none
    return Overlap(record=seen, patient=seen | patient, ids_checked=ids_checked)


def _ids(split: CohortSplit, table: pa.Table, key: bytes | None) -> tuple[list[str | None], list[str | None]]:
    """Record ids and patient ids (None where unknown) of some rows, as pseudonyms under `key` if there is one."""
    records = table.column("record_id").to_pylist()
    known = table.column("patient_id_known").to_pylist()
    patients = [p if k else None for p, k in zip(table.column("patient_id").to_pylist(), known, strict=True)]
    if key is None:
        return records, patients
    return _keyed(key, split.cohort, "record", records), _keyed(key, split.cohort, "patient", patients)


def _names_in(split: CohortSplit, cohort: str) -> tuple[list[str | None], list[str | None]] | None:
    """The split's record and patient ids as `cohort` writes them; None if the two share no recordings."""
    records, patients = _ids(split, split.table, None)
    if cohort == split.cohort:
        return records, patients
    renamed_records = [None if r is None else renamed(split.cohort, cohort, r) for r in records]
    if not any(renamed_records):
        return None
    # Where recordings keep their ids, so do their patients.
    return renamed_records, [p if r == n else None for p, r, n in zip(patients, records, renamed_records, strict=True)]


def _keyed(key: bytes, cohort: str, kind: str, originals: Sequence[str | None]) -> list[str | None]:
    return [None if o is None else pseudonym(key, cohort, kind, o) for o in originals]


def _among(values: Sequence[str | None], column: pa.ChunkedArray) -> Bool[np.ndarray, " rows"]:
    there = set(column.to_pylist()) - {None}
    return np.asarray([v in there for v in values], bool)
