"""What a run is trained on: records selected once, their texts and patients numbered, saved and hashed.

The saved files hold row numbers only, no text and no id, so that they may lie in a run folder whatever the access
class of the cohorts is; texts and ids are looked up again in the cohorts' own tables.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int32

from ecgclip_jax.data.order import permutation
from ecgclip_jax.data.sources import (
    AccessClass,
    CohortError,
    CohortSplit,
    open_cohort,
    strictest_access,
)
from ecgclip_jax.data.texts import REPORT_COLUMNS, Reports
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import DataSpec, Source

RECORDS_FILE, SUMMARY_FILE = "index-records.parquet", "index-summary.json"
_SHUFFLE_PATIENTS, _SHUFFLE_REPORTS = 11, 12

PatientKey = tuple[str, str, str]
"""Cohort, patient id, and, where that is unknown, the record id: such a record is a patient of its own."""


class RunIndexError(UserError):
    """A selection that leaves nothing to train on, or a saved index that no longer fits; the message says why."""


@dataclass(frozen=True)
class RunIndex:
    """The records of a run in source order, and the sorted tables that their texts and patients are rows of.

    `source[i]` and `shard_row[i]` say where record i lies; `report_row[i]` is the record whose report it is paired
    with: its own, except in the null world of shuffled reports.
    """

    cohorts: tuple[CohortSplit, ...]
    data: DataSpec
    seed: int
    source: Int32[np.ndarray, " records"]
    shard_row: Int32[np.ndarray, " records"]
    report_row: Int32[np.ndarray, " records"]
    left_out: tuple[dict[str, int], ...]
    """Per source, how many of its rows were not selected, by reason."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Selected records per source."""
        return tuple(int(n) for n in np.bincount(self.source, minlength=len(self.cohorts)))

    @property
    def access(self) -> AccessClass:
        """The strictest access class among the sources: what a run's outputs inherit."""
        return strictest_access(c.access for c in self.cohorts)

    @cached_property
    def _text_of_record(self) -> list[str]:
        own = self.reports.texts(self.data)
        return [own[row] for row in self.report_row.tolist()]

    @property
    def reports(self) -> Reports:
        """The records' own reports, in the run's order."""
        return Reports(*(self.column(name) for name in REPORT_COLUMNS))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The distinct texts, sorted."""
        return tuple(sorted(set(self._text_of_record)))

    @cached_property
    def text_row(self) -> Int32[np.ndarray, " records"]:
        """Row in `texts` of the report each record is paired with."""
        return _rows_in(self.texts, self._text_of_record)

    @cached_property
    def _patient_of_record(self) -> list[PatientKey]:
        names = [self.cohorts[s].cohort for s in self.source.tolist()]
        ids, known = self.column("patient_id"), self.column("patient_id_known")
        records = self.column("record_id")
        return [
            (name, patient, "") if is_known else (name, "", record)
            for name, patient, is_known, record in zip(names, ids, known, records, strict=True)
        ]

    @cached_property
    def patients(self) -> tuple[PatientKey, ...]:
        """The distinct patients, sorted; a patient of two sources of one cohort is one patient."""
        return tuple(sorted(set(self._patient_of_record)))

    @cached_property
    def patient_row(self) -> Int32[np.ndarray, " records"]:
        """Row in `patients` of each record."""
        return _rows_in(self.patients, self._patient_of_record)

    def column(self, name: str) -> list[Any]:
        """A field of the cohorts' tables for every record of the run, in the run's order."""
        values: list[Any] = []
        for number, cohort in enumerate(self.cohorts):
            rows = self.shard_row[self.source == number]
            values.extend(cohort.table.column(name).take(pa.array(rows)).to_pylist())
        return values

    def numbers(self, name: str) -> Float64[np.ndarray, " records"]:
        """A numeric field or measurement for every record of the run, NaN where it is unknown.

        Raises:
            RunIndexError: no cohort of the run has such a field, or it holds no numbers.
        """
        numeric = set().union(*(c.numeric_names for c in self.cohorts))
        if name not in numeric:
            near = difflib.get_close_matches(name, numeric, n=3)
            raise RunIndexError(
                f"no numeric field {name!r} in {', '.join(c.name for c in self.cohorts)}; "
                + (f"near it: {', '.join(near)}; " if near else "")
                + f"there are {', '.join(sorted(numeric))}"
            )
        values = np.full(len(self), np.nan)
        for number, cohort in enumerate(self.cohorts):
            if name in cohort.numeric_names:
                values[self.source == number] = cohort.numbers(name)[self.shard_row[self.source == number]]
        return values

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of what is trained on, with which texts, in which order."""
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for array in (self.source, self.shard_row, self.report_row, self.text_row, self.patient_row):
            digest.update(array.astype("<i4").tobytes())
        digest.update("\x00".join(self.texts).encode())
        digest.update("\x00".join("\x1f".join(key) for key in self.patients).encode())
        return digest.hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """Counts and fingerprints: what the run folder and the report say about the data."""
        return {
            **self._identity(),
            "fingerprint": self.fingerprint,
            "access": self.access,
            "licences": sorted({c.licence for c in self.cohorts}),
            "records": len(self),
            "patients": len(self.patients),
            "texts": len(self.texts),
            "selected": list(self.sizes),
            "left_out": list(self.left_out),
        }

    def save(self, folder: str | Path, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Writes `index-records.parquet` (row numbers) and `index-summary.json` (counts, fingerprints, and `facts`).

        `facts` are what else a run needs to remember of its records, such as the means of measurements.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        columns = {
            "source": self.source,
            "shard_row": self.shard_row,
            "report_row": self.report_row,
            "text_row": self.text_row,
            "patient_row": self.patient_row,
        }
        pq.write_table(pa.table(columns), folder / RECORDS_FILE)
        summary = self.summary() | dict(facts)
        (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")

    def _identity(self) -> dict[str, Any]:
        return {
            "cohorts": [{"name": c.name, "fingerprint": c.fingerprint} for c in self.cohorts],
            "weights": [s.weight for s in self.data.sources],
            "report_field": self.data.report_field,
            "statement_kinds": sorted(self.data.statement_kinds),
            "windows": self.data.windows,
            "min_report_words": self.data.min_report_words,
            "null_world": self.data.null_world,
            "seed": self.seed,
        }


def build_index(data: DataSpec, data_dir: str | Path, seed: int, *, reads_text: bool = True) -> RunIndex:
    """Opens the sources, selects their records and numbers what they need.

    Args:
        reads_text: False for an objective that reads no reports: then records without report, or with a short one, stay
            (`data.min_report_words` says what a report must have to be read, not what an ECG must have to be seen).

    Raises:
        CohortError: a source that is not prepared.
        RunIndexError: nothing selected, a source named twice, or reports that cannot be shuffled between patients.
    """
    cohorts = tuple(open_cohort(data_dir, source) for source in data.sources)
    names = [c.name for c in cohorts]
    if len(set(names)) < len(names):
        raise RunIndexError(
            f"data.sources names a split twice ({', '.join(names)}); use its weight to draw it more often"
        )
    chosen = [select_records(cohort.table, data, reads_text=reads_text) for cohort in cohorts]
    shard_row = np.concatenate([rows for rows, _ in chosen])
    source = np.repeat(np.arange(len(cohorts), dtype=np.int32), [len(rows) for rows, _ in chosen])
    left_out = tuple(reasons for _, reasons in chosen)
    for name, (rows, reasons) in zip(names, chosen, strict=True):
        if not len(rows):
            raise RunIndexError(f"no record of {name} is left to train on; left out: {reasons}")
    own = np.arange(len(source), dtype=np.int32)
    index = RunIndex(cohorts, data, seed, source, shard_row, own, left_out)
    if data.null_world == "shuffled_reports":
        shuffled = shuffle_between_patients(index.patient_row, seed)
        index = RunIndex(cohorts, data, seed, source, shard_row, shuffled, left_out)
    return index


def load_index(folder: str | Path, data: DataSpec, data_dir: str | Path, seed: int) -> RunIndex:
    """The index that a run saved, over the very cohort versions it used.

    Raises:
        CohortError: a cohort of the run is no longer there.
        RunIndexError: the folder holds no index, or the data or the selection changed since.
    """
    folder = Path(folder)
    if not (folder / RECORDS_FILE).is_file() or not (folder / SUMMARY_FILE).is_file():
        raise RunIndexError(f"no saved index in {folder}; expected {RECORDS_FILE} and {SUMMARY_FILE}")
    saved = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    versions = [c["name"].split("/")[1] for c in saved["cohorts"]]
    if len(versions) != len(data.sources):
        raise RunIndexError(f"the run in {folder} has {len(versions)} sources, the experiment {len(data.sources)}")
    pinned = [_pin(source, version) for source, version in zip(data.sources, versions, strict=True)]
    records = pq.read_table(folder / RECORDS_FILE)
    source, shard_row, report_row = (
        records.column(name).to_numpy().astype(np.int32) for name in ("source", "shard_row", "report_row")
    )
    cohorts = tuple(open_cohort(data_dir, p) for p in pinned)
    if any(int(shard_row[source == k].max(initial=0)) >= len(c) for k, c in enumerate(cohorts)):
        raise CohortError(f"a cohort of the run in {folder} has fewer records than when the run began")
    index = RunIndex(cohorts, data, seed, source, shard_row, report_row, tuple(saved["left_out"]))
    if index.fingerprint != saved["fingerprint"]:
        changed = _changes(saved, index.summary())
        raise RunIndexError(
            f"the data of the run in {folder} is not what it was ({changed}); "
            "restore the prepared cohort, or start a new run folder"
        )
    return index


def select_records(
    table: pa.Table, data: DataSpec, *, reads_text: bool = True
) -> tuple[Int32[np.ndarray, " rows"], dict[str, int]]:
    """Rows of a cohort's table that a run trains on, and how many were left out for which (first) reason."""
    least_words = data.min_report_words if reads_text else 0
    texts = Reports.of_table(table).texts(data) if least_words else [""] * table.num_rows
    n_words = np.asarray([len(text.split()) for text in texts], np.int64)
    window = table.column("window_index").to_numpy()
    reasons = {
        "window_not_first": (window > 0) & (data.windows == "first"),
        "report_missing": (n_words == 0) & (least_words > 0),
        "report_too_short": n_words < least_words,
    }
    kept: Bool[np.ndarray, " rows"] = np.ones(table.num_rows, bool)
    counts = {}
    for reason, applies in reasons.items():
        counts[reason] = int((kept & applies).sum())
        kept &= ~applies
    return np.flatnonzero(kept).astype(np.int32), {k: n for k, n in counts.items() if n}


def shuffle_between_patients(patient_row: Int32[np.ndarray, " records"], seed: int) -> Int32[np.ndarray, " records"]:
    """A permutation of records in which none stays with its own patient.

    Records are laid out patient by patient in a random order and turned by as many places as the largest patient has
    records: no patient's block can then overlap its own.

    Raises:
        RunIndexError: one patient has more than half of all records.
    """
    n = len(patient_row)
    largest = int(np.bincount(patient_row).max())
    if 2 * largest > n:
        raise RunIndexError(f"reports cannot change hands: one patient has {largest} of {n} records")
    patient_order = permutation(int(patient_row.max()) + 1, seed, _SHUFFLE_PATIENTS)
    within = permutation(n, seed, _SHUFFLE_REPORTS)
    layout = np.lexsort((within, patient_order[patient_row]))
    report_row = np.empty(n, np.int32)
    report_row[layout] = np.roll(layout, -largest)
    return report_row


def _rows_in(table: Sequence[Any], values: Sequence[Any]) -> Int32[np.ndarray, " values"]:
    row = {value: k for k, value in enumerate(table)}
    return np.fromiter((row[v] for v in values), np.int32, len(values))


def _pin(source: Source, version: str) -> Source:
    return source.model_copy(update={"version": version})


def _changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    differing = [k for k in after if k != "fingerprint" and before.get(k) != after[k]]
    return "changed: " + ", ".join(differing) if differing else "the saved row numbers were altered"
