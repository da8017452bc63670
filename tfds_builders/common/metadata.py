"""Metadata tables (CSV) as they are: every cell verbatim text, every row accounted for, columns checked by name."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import pyarrow as pa

from tfds_builders.common.cohort import BuildError

ROW_NUMBER = "__row__"
"""Column of a `MetadataTable` that holds a row's position in the file, malformed rows counted."""
_ROWS_AT_ONCE = 10_000
MAX_COLUMNS = 5_000
"""No cohort's table has a tenth of it; a table of waveforms, or a hostile one, is refused before it fills memory."""
_MAX_LINE_CHARACTERS = 2**22
"""Reports of several pages fit many times over."""


@dataclass(frozen=True)
class MetadataTable:
    """A CSV's rows as an Arrow table of text columns, which is many times smaller than Python's rows."""

    table: pa.Table
    malformed: tuple[tuple[int, str], ...]
    """Position and defect of the rows that have too few or too many cells."""
    sha256: str
    """Of the file's bytes."""

    @property
    def source_rows(self) -> int:
        """Rows in the file, malformed ones included."""
        return int(self.table.num_rows) + len(self.malformed)


def read_csv(path: Path, required: tuple[str, ...], delimiter: str = ",") -> MetadataTable:
    """Reads a CSV with a header line. Bytes that are not UTF-8 become U+FFFD.

    Raises:
      BuildError: if the file is missing or no CSV, or a required column is.
    """
    if not path.is_file():
        raise BuildError(f"{path.parent} holds no {path.name}; --source must name the folder that does")
    sha256 = sha256_of(path)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(_bounded_lines(file, path.name), delimiter=delimiter)
        columns = next(reader, [])
        if len(columns) > MAX_COLUMNS:
            raise BuildError(
                f"{path.name}: expected at most {MAX_COLUMNS:,} columns, found {len(columns):,}; this is no table of "
                "one row per recording"
            )
        if missing := [column for column in required if column not in columns]:
            raise BuildError(
                f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
                f"{', '.join(columns) or 'none'}. Is it the cohort's own, unedited table?"
            )
        if len(set(columns)) != len(columns):
            raise BuildError(f"{path.name} names a column twice: {', '.join(columns)}")
        malformed: list[tuple[int, str]] = []
        try:
            batches = list(_batches(reader, columns, malformed))
        except csv.Error as error:
            raise BuildError(f"{path.name}, line {reader.line_num}: not readable as CSV ({error})") from error
    return MetadataTable(pa.Table.from_batches(batches, _schema(columns)), tuple(malformed), sha256)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bounded_lines(file: IO[str], name: str) -> Iterator[str]:
    """Lines of a text file; one without an end is refused instead of read."""
    number = 0
    while line := file.readline(_MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == _MAX_LINE_CHARACTERS:
            raise BuildError(
                f"{name}, line {number}: expected at most {_MAX_LINE_CHARACTERS:,} characters, found more; this is no "
                "table of one row per recording"
            )
        yield line


def _schema(columns: list[str]) -> pa.Schema:
    return pa.schema([(ROW_NUMBER, pa.int64()), *((column, pa.string()) for column in columns)])


def _batches(
    reader: Iterator[list[str]], columns: list[str], malformed: list[tuple[int, str]]
) -> Iterator[pa.RecordBatch]:
    numbered = enumerate(row for row in reader if row)  # csv gives [] for an empty line, which is no row
    while chunk := list(islice(numbered, _ROWS_AT_ONCE)):
        good = [(number, row) for number, row in chunk if len(row) == len(columns)]
        malformed += [
            (number, f"expected {len(columns)} cells, found {len(row)}; the first is {row[0][:40]!r}")
            for number, row in chunk
            if len(row) != len(columns)
        ]
        cells = zip(*(row for _, row in good), strict=True) if good else ([] for _ in columns)
        arrays = [pa.array([number for number, _ in good], pa.int64()), *(pa.array(c, pa.string()) for c in cells)]
        yield pa.record_batch(arrays, schema=_schema(columns))
