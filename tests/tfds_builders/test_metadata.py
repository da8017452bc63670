"""CSV tables: verbatim cells, every row accounted for, clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfds_builders.common.cohort import BuildError
from tfds_builders.common.metadata import ROW_NUMBER, read_csv


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    return path


def test_cells_are_verbatim_text(tmp_path: Path) -> None:
    table = read_csv(
        _write(tmp_path, b'\xef\xbb\xbfid,age,text\r\n1,56.0," a, ""b""\nc "\r\n\r\n2,,NA\r\n'), ("id",)
    ).table
    assert table.to_pylist() == [
        {ROW_NUMBER: 0, "id": "1", "age": "56.0", "text": ' a, "b"\nc '},
        {ROW_NUMBER: 1, "id": "2", "age": "", "text": "NA"},
    ]


def test_malformed_rows_keep_their_place(tmp_path: Path) -> None:
    read = read_csv(_write(tmp_path, b"id,age\n1,2\n3\n4,5,6\n7,8\n"), ("id",))
    assert read.table[ROW_NUMBER].to_pylist() == [0, 3]
    assert [number for number, _ in read.malformed] == [1, 2]
    assert read.source_rows == 4


def test_bytes_that_are_no_utf8_are_marked(tmp_path: Path) -> None:
    table = read_csv(_write(tmp_path, b"id,text\n1,f\xfcr\n"), ("id",)).table
    assert table["text"].to_pylist() == ["f\N{REPLACEMENT CHARACTER}r"]


def test_long_tables_come_in_chunks(tmp_path: Path) -> None:
    rows = "".join(f"{i},x\n" for i in range(20_001))
    table = read_csv(_write(tmp_path, f"id,text\n{rows}".encode()), ("id",)).table
    assert table["id"].to_pylist() == [str(i) for i in range(20_001)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the columns id, age"),
        (b"id,sex\n", "lacks the column age"),
        (b"id,age,age\n1,2,3\n", "names a column twice"),
    ],
)
def test_unusable_tables(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read_csv(_write(tmp_path, content), ("id", "age"))
