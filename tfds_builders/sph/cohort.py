"""What is special about SPH: AHA codes with modifiers, one HDF5 file per recording, signals cleaned by a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ecgclip_jax.signal.hdf5 import dataset, open_hdf5, record_of_millivolts
from ecgclip_jax.signal.record import ECGRecord
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.stated import stated_codes, stated_person
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="sph",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://doi.org/10.6084/m9.figshare.c.5779802",
    label_vocabulary="aha",
    package=Path(__file__).parent,
    published_counts={"records": 25_770, "patients": 24_666},
)
_RATE_HZ = 500.0


@dataclass(frozen=True)
class Sph(TableCohort):
    """The figshare collection's layout: `metadata.csv` beside `records/A00001.h5` …"""

    own_facts = FACTS
    table_name = "metadata.csv"
    columns = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex")

    def key(self, row: Row) -> RowKey:
        """Recording and patient."""
        return RowKey(row["ECG_ID"].strip(), row["Patient_ID"].strip(), "")

    def path(self, row: Row) -> str:
        """One file per recording."""
        return f"records/{row['ECG_ID'].strip()}.h5"

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`; leads by time, in mV."""
        with open_hdf5(self.source / self.path(row), root=self.source) as file:
            return record_of_millivolts(dataset(file, "ecg", 2), 0, row["ECG_ID"].strip(), _RATE_HZ, "sph hdf5")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        return replace(stated_person(row["Age"], row["Sex"]), labels=_statements(row["AHA_Code"]))


def _statements(cell: str) -> tuple[tuple[str, float], ...]:
    """AHA statements, each a primary code with modifiers: `60+341;22`.

    Raises:
      RowError: `labels_malformed`.
    """
    codes = [code.strip() for code in cell.split(";") if code.strip()]
    if not codes or not all(part.isdecimal() for code in codes for part in code.split("+")):
        raise RowError(BuildReason.labels_malformed, f"AHA_Code: expected codes such as 60+341;22, found {cell[:60]!r}")
    return stated_codes(dict.fromkeys(codes))


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Sph:
    """See `registry.make_cohort`; figshare publishes no list of hashes, so the user downloads it."""
    return Sph(given_folder(source, FACTS), **options)
