"""A user's own cohort of WFDB records without a table: every comment by the name that `cohort.yaml` gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from tfds_builders.common.declaration import DeclaredCohort, HeaderDeclaration, read_declaration, undeclared
from tfds_builders.common.header_cohort import HeaderCohort, fields
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.table_cohort import Row

FACTS = undeclared(Path(__file__).parent)
_FOLDER = "folder"


@dataclass(frozen=True)
class WfdbFolder(DeclaredCohort, HeaderCohort):
    """A folder with `cohort.yaml` and WFDB records at any depth."""

    own_facts = FACTS

    @cached_property
    def declaration(self) -> HeaderDeclaration:
        """What `cohort.yaml` says."""
        return read_declaration(self.source, HeaderDeclaration)

    def key(self, row: Row) -> RowKey:
        """The path is the record's id: names may repeat in other folders."""
        path = PurePosixPath(row["path"])
        patient = self.declaration.comments.patient
        return RowKey(str(path), path.parent.name if patient == _FOLDER else _comment(row, patient), "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        comments = self.declaration.comments
        return replace(
            self.declaration.person(_named(row, comments.age), _named(row, comments.sex)),
            report=None if comments.report is None else _comment(row, comments.report),
            labels=self.declaration.labels_of(_comment(row, comments.labels)),
        )


def _named(row: Row, name: str | None) -> str | None:
    return None if name is None else fields(row["comments"]).get(name.lower(), "")


def _comment(row: Row, name: str | None) -> str:
    return _named(row, name) or ""


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> WfdbFolder:
    """See `registry.make_cohort`."""
    return WfdbFolder(given_folder(source, FACTS), **options)
