"""What is special about CODE-15 %: big HDF5 files in another order than the table, zeros around every tracing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
from rich.console import Console

from ecgclip_jax.signal.hdf5 import dataset, open_hdf5, record_of_millivolts
from ecgclip_jax.signal.record import ECGReadError, ECGRecord
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.metadata import MetadataTable, read_csv
from tfds_builders.common.records import Clinical, Described, RowKey
from tfds_builders.common.schema import Sex
from tfds_builders.common.source_faults import match_ids, measurement
from tfds_builders.common.sources import given_folder
from tfds_builders.common.stated import stated_age, stated_codes
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="code15",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://doi.org/10.5281/zenodo.4916206",
    label_vocabulary="code15",
    package=Path(__file__).parent,
    published_counts={"records": 345_779, "patients": 233_770},
)
LABELS: Final = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "normal_ecg")
RATE_HZ = 400.0
POSITION = "hdf5_row"
"""Column that `metadata` adds: where in its file a tracing stands; empty where it is not."""
_TRUE, _FALSE = frozenset({"true", "1", "1.0"}), frozenset({"false", "0", "0.0"})


@dataclass(frozen=True)
class Code15(TableCohort):
    """Zenodo's layout with the archives unpacked: `exams.csv` beside `exams_part0.hdf5` …"""

    own_facts = FACTS
    table_name = "exams.csv"
    columns: ClassVar[tuple[str, ...]] = (
        "exam_id",
        "age",
        "is_male",
        *LABELS,
        "patient_id",
        "death",
        "timey",
        "trace_file",
    )
    zero_padded = True
    label_columns: ClassVar[tuple[str, ...]] = LABELS

    def metadata(self) -> MetadataTable:
        """The table with the place of every tracing, in the order of the files: reading jumps less."""
        metadata = read_csv(self.source / self.table_name, self.columns)
        ids, files = (metadata.table[column].to_pylist() for column in ("exam_id", "trace_file"))
        place = {
            file: self._positions(file, {i for i, f in zip(ids, files, strict=True) if f == file})
            for file in set(files)
        }
        positions = [place[file].get(exam_id.strip()) for exam_id, file in zip(ids, files, strict=True)]
        cells = ["" if position is None else str(position) for position in positions]
        table = metadata.table.append_column(POSITION, pa.array(cells, pa.string()))
        order = sorted(range(len(ids)), key=lambda i: (files[i], -1 if positions[i] is None else positions[i]))
        return MetadataTable(table.take(order), metadata.malformed, metadata.sha256)

    def _positions(self, file: str, exam_ids: set[str]) -> dict[str, int]:
        """Exam → row of the file; nothing for a file that is missing or unreadable, which reading will tell."""
        try:
            with open_hdf5(self.source / file, root=self.source) as opened:
                there = dataset(opened, "exam_id", 1)[...].tolist()
        except ECGReadError:
            return {}
        return match_ids({exam_id.strip() for exam_id in exam_ids}, map(str, there)).position

    def key(self, row: Row) -> RowKey:
        """Exam and patient."""
        return RowKey(row["exam_id"].strip(), row["patient_id"].strip(), "")

    def path(self, row: Row) -> str:
        """The file with the exam's tracing."""
        return row["trace_file"].strip()

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`; tracings are time by leads, in mV."""
        file = kept_open(self.source, self.path(row))
        if not row[POSITION]:
            raise RowError(BuildReason.not_in_signals, f"{self.path(row)} holds no exam {row['exam_id']}")
        tracing = dataset(file, "tracings", 3)[int(row[POSITION])]
        return record_of_millivolts(tracing, 1, row["exam_id"].strip(), RATE_HZ, f"{self.facts.name} hdf5")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        age_years, censored, age_reasons = stated_age(row["age"])
        sex, sex_reasons = sex_of(row["is_male"])
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            clinical=follow_up(row),
            labels=_labels(row, self.label_columns),
            reasons=(*age_reasons, *sex_reasons),
        )


@lru_cache(maxsize=2)
def kept_open(source: Path, name: str) -> Any:
    """An HDF5 file that stays open in this worker: rows come in the files' order, and opening one takes longer than a
    tracing.
    """
    return open_hdf5(source / name, root=source)


def sex_of(is_male: str) -> tuple[Sex, tuple[str, ...]]:
    """Sex, and what the audit should say."""
    male = flag(is_male)
    if male is None:
        return "unknown", (BuildReason.sex_unknown.value,)
    return ("male" if male else "female"), ()


def flag(cell: str) -> bool | None:
    """A cell of true or false; None for anything else."""
    text = cell.strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _labels(row: Row, columns: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The columns that are true.

    Raises:
      RowError: `labels_malformed`.
    """
    flags = {column: flag(row[column]) for column in columns}
    if unclear := [column for column, flag in flags.items() if flag is None]:
        raise RowError(
            BuildReason.labels_malformed, f"{unclear[0]}: expected True or False, found {row[unclear[0]][:40]!r}"
        )
    return stated_codes(column for column, flag in flags.items() if flag)


def follow_up(row: Row) -> Clinical:
    """Death and years until it or until the last news, which only a patient's first exam has."""
    died, years = flag(row["death"]), measurement(row["timey"], (0.0, 120.0))
    if died is None or years is None:
        return Clinical()
    return Clinical(follow_up_years=years, event_observed=float(died))


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Code15:
    """See `registry.make_cohort`; Zenodo publishes no list of SHA-256, so the user downloads it."""
    return Code15(given_folder(source, FACTS), **options)
