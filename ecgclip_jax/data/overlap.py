"""Which prepared cohorts of a data directory hold the same recordings or the same patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecgclip_jax.data.sources import prepared_cohorts
from ecgclip_jax.text.shared_records import cohorts_sharing_records, renamed

_COLUMNS = ["record_id", "patient_id", "patient_id_known", "waveform_sha256"]


@dataclass(frozen=True)
class SharedWith:
    """What one cohort has in common with another."""

    cohort: str
    version: str
    waveforms: int
    """Different waveforms that both hold."""
    records: int
    """Recordings that both hold, by waveform or by an id of which it is published how it translates."""
    patients: int
    """Patients of whom both hold ECGs: those of shared recordings, and those whose ids are the same in both."""
    published: str
    """What is published about it; empty if nothing is."""


def shared_with_prepared(folder: Path) -> list[SharedWith]:
    """Compares the prepared cohort in `folder` with the newest version of every other one beside it.

    Only cohorts with something in common, found or published, are returned.
    """
    data_dir, name = folder.parent.parent, folder.parent.name
    own = _identity(folder)
    published = cohorts_sharing_records(name)
    found = []
    for other, versions in prepared_cohorts(data_dir).items():
        if other == name:
            continue
        told = ", ".join(published.get(other, ()))
        shared = _compare(name, own, other, _identity(data_dir / other / versions[0]))
        if told or any(shared):
            found.append(SharedWith(other, versions[0], *shared, published=told))
    return found


def _identity(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path, columns=_COLUMNS) for path in sorted(folder.glob("records-*.parquet")))


def _compare(name: str, own: pa.Table, other: str, theirs: pa.Table) -> tuple[int, int, int]:
    """Shared waveforms, recordings and patients."""
    waveforms = set(theirs["waveform_sha256"].to_pylist())
    ids = set(theirs["record_id"].to_pylist())
    people = {p for p, k in zip(*_patients(theirs), strict=True) if k}
    common, records, patients = set(), set(), set()
    columns = (own["record_id"].to_pylist(), own["waveform_sha256"].to_pylist(), *_patients(own))
    for record_id, sha256, patient, known in zip(*columns, strict=True):
        there = renamed(name, other, record_id)
        if sha256 in waveforms:
            common.add(sha256)
        if sha256 in waveforms or there in ids:
            records.add(record_id)
            patients |= {patient} if known else set()
        elif known and there == record_id and patient in people:  # where recordings keep their ids, patients do
            patients.add(patient)
    return len(common), len(records), len(patients)


def _patients(table: pa.Table) -> tuple[list[str], list[bool]]:
    return table["patient_id"].to_pylist(), table["patient_id_known"].to_pylist()
