"""A user's own cohort of a table and ECG files: every column by the name that `cohort.yaml` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from tfds_builders.common.cohort import OFFICIAL, BuildError, SplitRule
from tfds_builders.common.declaration import DeclaredCohort, TableDeclaration, read_declaration, undeclared
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.source_faults import measured
from tfds_builders.common.sources import given_folder
from tfds_builders.common.table_cohort import Row

FACTS = undeclared(Path(__file__).parent)


@dataclass(frozen=True)
class TableFolder(DeclaredCohort):
    """A folder with `cohort.yaml`, a CSV or Parquet table, and ECG files in any format that `read_ecg` knows."""

    own_facts = FACTS

    @cached_property
    def declaration(self) -> TableDeclaration:
        """What `cohort.yaml` says."""
        return read_declaration(self.source, TableDeclaration)

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
        return replace(
            declared.person(_named(row, columns.age), _named(row, columns.sex)),
            report=None if columns.report is None else row[columns.report],
            labels=declared.labels_of(_cell(row, columns.labels)),
            measurements=measured((name, row[name]) for name in columns.measurements),
            site=_cell(row, columns.site),
            device=_cell(row, columns.device),
        )


def _named(row: Row, column: str | None) -> str | None:
    return None if column is None else row[column].strip()


def _cell(row: Row, column: str | None) -> str:
    return _named(row, column) or ""


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
