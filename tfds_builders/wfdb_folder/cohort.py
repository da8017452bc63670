"""A user's own cohort of WFDB records without a table: every comment by the name that `cohort.yaml` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from rich.console import Console

from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort, fields, stated_age
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import DEFAULT_SHARES
from tfds_builders.common.table_cohort import Row
from tfds_builders.table_folder.declaration import HeaderDeclaration, read_declaration

FACTS = CohortFacts(
    name="wfdb_folder",
    version="1.0.0",
    access="private",
    licence="the cohort's own",
    homepage="the folder that you name",
    label_vocabulary="own",
    package=Path(__file__).parent,
)
"""What stands in for a cohort that is not declared yet."""
_FOLDER = "folder"


@dataclass(frozen=True)
class WfdbFolder(HeaderCohort):
    """A folder with `cohort.yaml` and WFDB records at any depth."""

    splits = ("train", "validation", "test")
    stratify: ClassVar[Mapping[str, float]] = DEFAULT_SHARES

    @cached_property
    def declaration(self) -> HeaderDeclaration:
        """What `cohort.yaml` says."""
        return read_declaration(self.source, HeaderDeclaration)

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return self.declaration.facts(FACTS.package)

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`: the whole declaration."""
        return self.declaration.model_dump(mode="json")

    def key(self, row: Row) -> RowKey:
        """The path is the record's id: names may repeat in other folders."""
        path = PurePosixPath(row["path"])
        patient = self.declaration.comments.patient
        return RowKey(str(path), path.parent.name if patient == _FOLDER else _comment(row, patient), "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        comments = self.declaration.comments
        age_years, censored, age_reasons = stated_age(_comment(row, comments.age))
        sex = self.declaration.sex_of(_comment(row, comments.sex))
        sex_reasons = (BuildReason.sex_unknown.value,) if sex == "unknown" and comments.sex else ()
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            report=None if comments.report is None else _comment(row, comments.report),
            labels=self.declaration.labels_of(_comment(row, comments.labels)),
            reasons=(*(age_reasons if comments.age else ()), *sex_reasons),
        )


def _comment(row: Row, name: str | None) -> str:
    return "" if name is None else fields(row["comments"]).get(name.lower(), "")


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> WfdbFolder:
    """See `registry.make_cohort`."""
    return WfdbFolder(given_folder(source, FACTS), **options)
