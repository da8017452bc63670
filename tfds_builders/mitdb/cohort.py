"""What is special about MIT-BIH: modified leads, every beat annotated, two recordings of one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from rich.console import Console

from ecgclip_jax.signal.record import ECGRecord
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort
from tfds_builders.common.records import Annotation, Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.table_cohort import Row
from tfds_builders.common.wfdb_annotations import read_annotations

FACTS = CohortFacts(
    name="mitdb",
    version="1.0.0",
    access="open",
    licence="Open Data Commons Attribution License 1.0",
    homepage="https://physionet.org/content/mitdb/1.0.0/",
    label_vocabulary="mitdb",
    package=Path(__file__).parent,
    published_counts={"records": 48, "patients": 47},
)
_SAME_PERSON: Final = {"202": "201"}
"""Records 201 and 202 are of one person (database directory)."""
_MODIFIED_II: Final = "MLII"


@dataclass(frozen=True)
class Mitdb(HeaderCohort):
    """`mitdb` 1.0.0: `100.{hea,dat,atr}` … in one folder."""

    modified_ii_as_ii: bool = False
    """Store the modified limb lead II, which is another lead of similar shape, as lead II: for single-lead tasks."""

    own_facts = FACTS

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"modified_ii_as_ii": self.modified_ii_as_ii}

    def takes(self, path: str) -> bool:
        """Records that have three digits; 102-0 and its like are parts of others."""
        return PurePosixPath(path).name.isdecimal()

    def key(self, row: Row) -> RowKey:
        """The person, who is known by the record."""
        name = PurePosixPath(row["path"]).name
        return RowKey(name, _SAME_PERSON.get(name, name), "")

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`."""
        record = super().read(row)
        if not self.modified_ii_as_ii:
            return record
        return replace(record, leads=tuple("II" if lead == _MODIFIED_II else lead for lead in record.leads))

    def describe(self, row: Row) -> Described:
        """Nothing but annotations is said of a recording; see `complete` for age and sex."""
        return Described()

    def complete(self, described: Described, record: ECGRecord) -> Described:
        """Age and sex, from the header's first comment (`69 M …`)."""
        return replace(described, age_years=record.facts.age_years, sex=record.facts.sex or "unknown")

    def annotations(self, row: Row, record: ECGRecord) -> list[Annotation]:
        """Beats and changes of rhythm."""
        return read_annotations(self.source / row["path"], "atr", record.rate_hz, root=self.source)


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Mitdb:
    """See `registry.make_cohort`."""
    return Mitdb(given_or_fetched(source, FACTS, downloads, "mitdb/1.0.0", console, ("1", "2")), **options)
