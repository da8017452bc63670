"""Cohorts without a metadata table: what is known of a recording stands in the comments of its WFDB header."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from ecgclip_jax.signal.paths import MAX_HEADER_BYTES, member, read_regular_file
from ecgclip_jax.signal.record import ECGReadError
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable
from tfds_builders.common.records import Described
from tfds_builders.common.source_faults import split_codes
from tfds_builders.common.stated import NOT_STATED, stated_codes, stated_person
from tfds_builders.common.table_cohort import Row, RowError, TableCohort


@dataclass(frozen=True)
class HeaderCohort(TableCohort):
    """A cohort of WFDB records below `folder`; its table is made of their headers: a `path` and the `comments`."""

    table_name = "WFDB headers (.hea)"
    columns = ("path", "comments")
    folder: ClassVar[str] = "."
    """Where the records lie, relative to the source."""

    def metadata(self) -> MetadataTable:
        """See `TableCohort.metadata`. A header that cannot be read keeps its row; reading the record tells why."""
        digest = hashlib.sha256()
        paths, comments = [], []
        for path, content in self._headers():
            digest.update(f"{path}\n{len(content)}\n".encode() + content)
            paths.append(path)
            comments.append(_comments(content))
        if not paths:
            raise BuildError(
                f"{self.source / self.folder} holds no WFDB header (.hea) of {self.facts.name}, at any depth; --source "
                f"must name the folder as {self.facts.homepage} lays it out"
            )
        numbers = pa.array(range(len(paths)), pa.int64())
        columns = [numbers, pa.array(paths, pa.string()), pa.array(comments, pa.string())]
        table = pa.table(columns, names=[ROW_NUMBER, *self.columns])
        return MetadataTable(table, (), digest.hexdigest())

    def _headers(self) -> Iterator[tuple[str, bytes]]:
        """Paths without suffix, relative to the source and in order, and what the headers hold."""
        root = os.path.realpath(self.source)
        for folder, folders, names in os.walk(self.source / self.folder):
            folders.sort()
            for name in sorted(name for name in names if name.endswith(".hea")):
                path = os.path.relpath(os.path.join(folder, name), self.source).removesuffix(".hea")
                if self.takes(path):
                    yield path, _content(os.path.realpath(folder), name, root)

    def takes(self, path: str) -> bool:
        """Whether a record belongs to what is built."""
        return True

    def path(self, row: Row) -> str:
        """See `TableCohort.path`."""
        return row["path"]


def _content(folder: str, name: str, root: str) -> bytes:
    try:
        return read_regular_file(member(folder, name, root), max_bytes=MAX_HEADER_BYTES)
    except ECGReadError:
        return b""


def _comments(content: bytes) -> str:
    text = content.decode("utf-8", errors="replace")
    return "\n".join(line.strip().lstrip("#").strip() for line in text.splitlines() if line.lstrip().startswith("#"))


def fields(comments: str) -> dict[str, str]:
    """`Age: 74`, `<sex>: F` and their like, by lower-cased name; of two lines of a name the first counts."""
    found: dict[str, str] = {}
    for line in comments.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip("<> \t").lower(), value.strip())
    return found


def challenge_described(comments: str) -> Described:
    """Age, sex and SNOMED CT codes of a header as the Challenges of 2020 and 2021 write it.

    Raises:
      RowError: `labels_malformed`.
    """
    stated = fields(comments)
    person = stated_person(stated.get("age", ""), stated.get("sex", ""))
    return replace(person, labels=_snomed_codes(stated.get("dx", "")))


def _snomed_codes(text: str) -> tuple[tuple[str, float], ...]:
    """The codes of a `Dx` line: SNOMED CT numbers, separated by commas, of which mirrors have some too many.

    Raises:
      RowError: `labels_malformed`.
    """
    if text.strip().lower() in NOT_STATED:
        return ()
    codes = split_codes(text)
    if wrong := [code for code in codes if not (code.isascii() and code.isdigit())]:
        raise RowError(BuildReason.labels_malformed, f"Dx: expected SNOMED CT numbers, found {wrong[0][:40]!r}")
    return stated_codes(codes)
