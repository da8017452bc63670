"""A user's own cohort of a table and ECG files: every column by the name that `cohort.yaml` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import OFFICIAL, BuildError, CohortFacts, SplitRule
from tfds_builders.common.header_cohort import stated_age
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.source_faults import measurement
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import DEFAULT_SHARES
from tfds_builders.common.table_cohort import Row, TableCohort
from tfds_builders.table_folder.declaration import TableDeclaration, read_declaration

FACTS = CohortFacts(
    name="table_folder",
    version="1.0.0",
    access="private",
    licence="the cohort's own",
    homepage="the folder that you name",
    label_vocabulary="own",
    package=Path(__file__).parent,
)
"""What stands in for a cohort that is not declared yet."""


@dataclass(frozen=True)
class TableFolder(TableCohort):
    """A folder with `cohort.yaml`, a CSV or Parquet table, and ECG files in any format that `read_ecg` knows."""

    splits = ("train", "validation", "test")
    stratify: ClassVar[Mapping[str, float]] = DEFAULT_SHARES

    @cached_property
    def declaration(self) -> TableDeclaration:
        """What `cohort.yaml` says."""
        return read_declaration(self.source, TableDeclaration)

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return self.declaration.facts(FACTS.package)

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`: the whole declaration."""
        return self.declaration.model_dump(mode="json")

    def metadata(self) -> MetadataTable:
        """See `TableCohort.metadata`."""
        columns = self.declaration.columns
        named = [name for field, name in columns if isinstance(name, str)] + list(columns.measurements)
        path = self.source / self.declaration.table
        if path.suffix.lower() != ".parquet":
            return read_csv(path, tuple(named))
        return _read_parquet(path, named)

    def key(self, row: Row) -> RowKey:
        """See `TableCohort.key`."""
        columns = self.declaration.columns
        name = PurePosixPath(self.path(row)).name
        return RowKey(_cell(row, columns.record) or name, _cell(row, columns.patient), _cell(row, columns.split))

    def _with_splits(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> tuple[list[RowKey], SplitRule]:
        column = self.declaration.columns.split
        if self.splits_from is None and column is not None:
            return list(keys), replace(OFFICIAL, note=f"column {column} of the table")
        return super()._with_splits(rows, keys)

    def path(self, row: Row) -> str:
        """See `TableCohort.path`."""
        return row[self.declaration.columns.path].strip()

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        declared = self.declaration
        columns = declared.columns
        age_years, censored, age_reasons = stated_age(_cell(row, columns.age))
        sex = declared.sex_of(_cell(row, columns.sex))
        sex_reasons = (BuildReason.sex_unknown.value,) if sex == "unknown" and columns.sex else ()
        numbers = ((name, measurement(row[name])) for name in columns.measurements)
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            report=None if columns.report is None else row[columns.report],
            labels=declared.labels_of(_cell(row, columns.labels)),
            measurements=tuple((name, number) for name, number in numbers if number is not None),
            site=_cell(row, columns.site),
            device=_cell(row, columns.device),
            reasons=(*(age_reasons if columns.age else ()), *sex_reasons),
        )


def _cell(row: Row, column: str | None) -> str:
    return "" if column is None else row[column].strip()


def _read_parquet(path: Path, named: Sequence[str]) -> MetadataTable:
    """A Parquet file's columns as text, like a CSV's."""
    try:
        table = pq.read_table(path)
        content = sha256(path.read_bytes()).hexdigest()
    except (OSError, pa.ArrowException) as error:
        raise BuildError(f"{path} cannot be read as Parquet ({error})") from error
    if missing := [name for name in named if name not in table.column_names]:
        raise BuildError(f"{path.name} lacks the columns {', '.join(missing)}; it has {', '.join(table.column_names)}")
    try:
        cells = [pc.fill_null(table[name].cast(pa.string()), "") for name in table.column_names]
    except pa.ArrowException as error:
        raise BuildError(f"{path.name}: every column must be text or numbers, lists are not ({error})") from error
    numbers = pa.array(range(table.num_rows), pa.int64())
    return MetadataTable(pa.table([numbers, *cells], names=[ROW_NUMBER, *table.column_names]), (), content)


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> TableFolder:
    """See `registry.make_cohort`."""
    cohort = TableFolder(given_folder(source, FACTS), **options)
    return replace(cohort, report_cleaning=cohort.declaration.report_cleaning)
