"""One shard, written whole or not at all: ArrayRecord file, Parquet sidecar, audit rows, and last the mark "done"."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tfds_builders.common.audit import AuditRow, audit_table
from tfds_builders.common.cohort import Cohort, Shard
from tfds_builders.common.example_wire import example, without_blobs
from tfds_builders.common.schema import records_table

RECORDS_WRITTEN_TOGETHER = 16
"""Compressing empties the processor's caches of everything else, so records wait (2 MB) and are written in a row."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a finished shard holds."""

    split: str
    index: int
    source_rows: int
    records: int
    bytes: int
    """Size of the ArrayRecord file; 0 where every record was dropped and there is none."""
    digest: str
    """SHA-256 of the records in order: every field as it is stored, the waveform by its own hash."""


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """Where a shard's files lie while the cohort is being built."""

    folder: Path
    split: str
    index: int

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.split}-{self.index:05d}{suffix}"

    @property
    def data(self) -> Path:
        """The ArrayRecord file."""
        return self._path(".array_record")

    @property
    def records(self) -> Path:
        """Every field but the waveform."""
        return self._path(".records.parquet")

    @property
    def audit(self) -> Path:
        """One row per source record."""
        return self._path(".audit.parquet")

    @property
    def done(self) -> Path:
        """The `ShardResult` as JSON; it exists when, and only when, the other files are whole."""
        return self._path(".done.json")

    def finished(self) -> ShardResult | None:
        """The result, if an earlier run finished this shard and its data file still has its size."""
        if not self.done.is_file():
            return None
        result = ShardResult(**json.loads(self.done.read_text()))
        size = self.data.stat().st_size if self.data.is_file() else 0
        return result if size == result.bytes and self.records.is_file() and self.audit.is_file() else None


def write_json(path: Path, value: object) -> None:
    """Indented UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file, flushes it to disk and gives it its name in one step."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # two jobs of a cluster may do the same work
    write(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_shard(cohort: Cohort, shard: Shard, folder: Path) -> ShardResult:
    """Converts a shard's source records and writes its files; returns at once if they are there already."""
    files = ShardFiles(folder, shard.split, shard.index)
    if finished := files.finished():
        return finished
    from array_record.python.array_record_module import ArrayRecordWriter

    rows: list[dict[str, Any]] = []
    audit: list[AuditRow] = []
    digest = hashlib.sha256()

    def convert(path: Path) -> None:
        writer = ArrayRecordWriter(str(path), f"group_size:1,{cohort.compression}")
        waiting: list[bytes] = []
        for outcome in cohort.convert(shard):
            audit.append(outcome.audit_row())
            for record in outcome.records:
                rows.append(record.row())
                entries = record.entries()
                digest.update(without_blobs(entries))
                waiting.append(example(entries))
            if len(waiting) >= RECORDS_WRITTEN_TOGETHER:
                _write_all(writer, waiting)
        _write_all(writer, waiting)
        writer.close()

    with _without_searching_for_garbage():
        write_whole(files.data, convert)
    if not rows:
        files.data.unlink()
    write_whole(files.records, lambda path: pq.write_table(records_table(rows), path))
    write_whole(files.audit, lambda path: pq.write_table(audit_table(audit), path))
    size = files.data.stat().st_size if rows else 0
    result = ShardResult(shard.split, shard.index, shard.source_rows, len(rows), size, digest.hexdigest())
    write_whole(files.done, lambda path: write_json(path, asdict(result)))
    return result


@contextmanager
def _without_searching_for_garbage() -> Iterator[None]:
    """Records hold no cycles, yet their many small objects would set off one search after the other."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _write_all(writer: Any, waiting: list[bytes]) -> None:
    """Writes the records and empties the list."""
    for record in waiting:
        writer.write(record)
    waiting.clear()
