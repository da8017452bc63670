"""What is special about LUDB: wave boundaries lead by lead, and a cardiologist's statements in the headers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from ecgclip_jax.signal.record import ECGRecord
from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort, fields
from tfds_builders.common.records import Annotation, Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.stated import stated_codes, stated_person
from tfds_builders.common.table_cohort import Row
from tfds_builders.common.wfdb_annotations import read_annotations

FACTS = CohortFacts(
    name="ludb",
    version="1.0.1",
    access="open",
    licence="Open Data Commons Attribution License 1.0",
    homepage="https://physionet.org/content/ludb/1.0.1/",
    label_vocabulary="ludb",
    package=Path(__file__).parent,
    published_counts={"records": 200, "patients": 200},
)
_DIAGNOSES = "<diagnoses>:"


@dataclass(frozen=True)
class Ludb(HeaderCohort):
    """LUDB 1.0.1 in the layout `data/N.{hea,dat,i,ii,…}`."""

    own_facts = FACTS
    folder = "data"

    def key(self, row: Row) -> RowKey:
        """Each recording is of another person (dataset description)."""
        number = PurePosixPath(row["path"]).name
        return RowKey(number, number, "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        stated = fields(row["comments"])
        statements = _statements(row["comments"])
        return replace(
            stated_person(stated.get("age", ""), stated.get("sex", "")),
            report="\n".join(statements),
            labels=stated_codes(statement.rstrip(".") for statement in dict.fromkeys(statements)),
        )

    def annotations(self, row: Row, record: ECGRecord) -> list[Annotation]:
        """Onset `(`, peak `p`, `N` or `t`, and end `)` of every wave, in the lead where it was marked."""
        path = self.source / row["path"]
        return [
            mark
            for lead in LEADS_12
            for mark in read_annotations(path, lead.lower(), record.rate_hz, root=self.source, lead=lead)
        ]


def _statements(comments: str) -> list[str]:
    """The lines after `<diagnoses>:`."""
    _, _, text = comments.partition(_DIAGNOSES)
    return [line.strip() for line in text.splitlines() if line.strip()]


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Ludb:
    """See `registry.make_cohort`."""
    return Ludb(given_or_fetched(source, FACTS, downloads, "ludb/1.0.1", console, ("data/", "ludb.csv")), **options)
