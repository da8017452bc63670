"""What is special about Chapman-Shaoxing-Ningbo: two hospitals under one numbering, codes in the headers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort, challenge_described
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.table_cohort import Row

FACTS = CohortFacts(
    name="chapman_shaoxing_ningbo",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://physionet.org/content/ecg-arrhythmia/1.0.0/",
    label_vocabulary="snomed",
    package=Path(__file__).parent,
    published_counts={"records": 45_152},
)
_LAST_OF_CHAPMAN = 10_646
"""JS00001 to JS10646 are Chapman-Shaoxing's, the others Ningbo's."""


@dataclass(frozen=True)
class ChapmanShaoxingNingbo(HeaderCohort):
    """`ecg-arrhythmia` 1.0.0 in the layout `WFDBRecords/NN/NNN/JSxxxxx`."""

    own_facts = FACTS
    folder = "WFDBRecords"

    def key(self, row: Row) -> RowKey:
        """The record's name; whose it is is not stated."""
        return RowKey(PurePosixPath(row["path"]).name, "", "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        return replace(challenge_described(row["comments"]), site=_hospital(PurePosixPath(row["path"]).name))


def _hospital(record_id: str) -> str:
    number = record_id.removeprefix("JS")
    if not number.isdecimal():
        return ""
    return "chapman_shaoxing" if int(number) <= _LAST_OF_CHAPMAN else "ningbo"


def from_source(
    source: Path | None, downloads: Path, console: Console | None = None, **options: Any
) -> ChapmanShaoxingNingbo:
    """See `registry.make_cohort`."""
    folder = given_or_fetched(source, FACTS, downloads, "ecg-arrhythmia/1.0.0", console, ("WFDBRecords/",))
    return ChapmanShaoxingNingbo(folder, **options)
