"""What is special about the Challenge 2017: one lead named "ECG", and a table without a header line."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from rich.console import Console

from ecgclip_jax.signal.record import ECGRecord
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.stated import stated_codes
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="cinc2017",
    version="1.0.0",
    access="open",
    licence="Open Data Commons Attribution License 1.0",
    homepage="https://physionet.org/content/challenge-2017/1.0.0/",
    label_vocabulary="cinc2017",
    package=Path(__file__).parent,
    published_counts={"records": 8_528, "label/N": 5_154, "label/A": 771, "label/O": 2_557, "label/~": 46},
)
_TABLES: Final = ("REFERENCE-v3.csv", "training2017/REFERENCE-v3.csv", "REFERENCE.csv", "training2017/REFERENCE.csv")
"""The third version corrects labels; an older one is taken where it alone is there."""
_CLASSES: Final = frozenset("NAO~")
_LEAD_IN_FILES: Final = "ECG"


@dataclass(frozen=True)
class Cinc2017(TableCohort):
    """`training2017/A00001.{hea,mat}` with `REFERENCE-v3.csv` beside or above them."""

    own_facts = FACTS
    table_name = "REFERENCE-v3.csv"
    columns = ("record", "label")

    def metadata(self) -> MetadataTable:
        """The labels; the file has no header line."""
        path = next((self.source / name for name in _TABLES if (self.source / name).is_file()), None)
        if path is None:
            raise BuildError(f"{self.source} holds none of {', '.join(_TABLES)}; --source must name a folder that does")
        content = path.read_bytes()
        rows = [row for row in csv.reader(content.decode("utf-8-sig", errors="replace").splitlines()) if row]
        good = [(number, row) for number, row in enumerate(rows) if len(row) == len(self.columns)]
        malformed = [
            (number, f"expected 2 cells, found {len(row)}") for number, row in enumerate(rows) if len(row) != 2
        ]
        columns = [pa.array([number for number, _ in good], pa.int64())]
        columns += [pa.array([row[i] for _, row in good], pa.string()) for i in range(len(self.columns))]
        table = pa.table(columns, names=[ROW_NUMBER, *self.columns])
        return MetadataTable(table, tuple(malformed), hashlib.sha256(content).hexdigest())

    def key(self, row: Row) -> RowKey:
        """The recording's name; whose it is is not stated."""
        return RowKey(row["record"].strip(), "", "")

    def path(self, row: Row) -> str:
        """In `training2017`, or loose."""
        name = row["record"].strip()
        inside = f"training2017/{name}"
        return inside if (self.source / f"{inside}.hea").exists() else name

    def read(self, row: Row) -> ECGRecord:
        """The recording as lead I, which is what the hand-held device takes between the hands."""
        record = super().read(row)
        return replace(record, leads=tuple("I" if lead == _LEAD_IN_FILES else lead for lead in record.leads))

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`; age and sex are not published."""
        label = row["label"].strip()
        if label not in _CLASSES:
            raise RowError(BuildReason.labels_malformed, f"label: expected N, A, O or ~, found {label[:40]!r}")
        return Described(labels=stated_codes((label,)))


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Cinc2017:
    """See `registry.make_cohort`; PhysioNet has it as an archive, which the user unpacks."""
    return Cinc2017(given_folder(source, FACTS), **options)
