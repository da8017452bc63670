"""What a run has seen, record by record, and the question whether an evaluation set overlaps it.

Above the access class `open` original ids are replaced by keyed pseudonyms (HMAC-SHA256). The key lies in the data
directory, beside the cohorts, never in a run folder: whoever may read the data can check an overlap, and a run folder
that travels tells nothing. Waveform hashes stay as they are: ten seconds of microvolts cannot be guessed, and only who
holds the recording can recognise its hash; they let an overlap be found anywhere and under any cohort name.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.data.sources import CohortError, CohortSplit

EXPOSURE_FILE = "exposure.parquet"
KEY_FILE = ".pseudonym_key"
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
        records, patients = _ids(cohort, rows, _make_key(cohort.data_dir) if keyed else None)
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
    """Compares a split with what a run has seen: by waveform over all cohorts, by ids within the same cohort."""
    exposure = pq.read_table(exposure_file)
    waveforms = set(exposure.column("waveform_sha256").to_pylist())
    same_cohort = exposure.filter(pc.equal(exposure.column("cohort"), split.cohort))
    keyed = any(same_cohort.column("keyed").to_pylist())
    key = _read_key(split.data_dir) if keyed else None
    ids_checked = not keyed or key is not None
    seen = np.asarray([w in waveforms for w in split.table.column("waveform_sha256").to_pylist()], bool)
    patient = np.zeros(len(split), bool)
    if ids_checked:
        records, patients = _ids(split, split.table, key)
        seen |= _among(records, same_cohort.column("record_id"))
        patient = _among(patients, same_cohort.column("patient_id"))
    return Overlap(record=seen, patient=seen | patient, ids_checked=ids_checked)


def pseudonym(key: bytes, cohort: str, kind: str, original: str) -> str:
    """32 hex digits that stand for an id: equal under one key, meaningless without it."""
    return hmac.new(key, "\x1f".join((cohort, kind, original)).encode(), hashlib.sha256).hexdigest()[:32]


def _ids(split: CohortSplit, table: pa.Table, key: bytes | None) -> tuple[list[str], list[str | None]]:
    """Record ids and patient ids (None where unknown) of some rows, as pseudonyms under `key` if there is one."""
    records = table.column("record_id").to_pylist()
    known = table.column("patient_id_known").to_pylist()
    patients = [p if k else None for p, k in zip(table.column("patient_id").to_pylist(), known, strict=True)]
    if key is None:
        return records, patients
    return (
        [pseudonym(key, split.cohort, "record", r) for r in records],
        [None if p is None else pseudonym(key, split.cohort, "patient", p) for p in patients],
    )


def _among(values: Sequence[str | None], column: pa.ChunkedArray) -> Bool[np.ndarray, " rows"]:
    there = set(column.to_pylist()) - {None}
    return np.asarray([v in there for v in values], bool)


def _read_key(data_dir: Path) -> bytes | None:
    path = data_dir / KEY_FILE
    return bytes.fromhex(path.read_text()) if path.is_file() else None


def _make_key(data_dir: Path) -> bytes:
    """The key of a data directory, made at its first use; readable by its owner only."""
    path = data_dir / KEY_FILE
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise CohortError(
            f"cannot make the pseudonym key {path} ({error.strerror}); a run on a cohort above access class open "
            "needs it: let its owner put 64 random hex digits there, readable by those who may read the data"
        ) from error
    key = _read_key(data_dir)
    if not key:
        raise CohortError(f"the pseudonym key {path} is empty; expected 64 hex digits")
    return key
