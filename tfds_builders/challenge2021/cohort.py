"""What is special about the Challenge 2021: eight databases in one layout, everything known stands in the headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from rich.console import Console

from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort, challenge_described
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.table_cohort import Row

Database = Literal[
    "all",
    "chapman_shaoxing",
    "cpsc_2018",
    "cpsc_2018_extra",
    "georgia",
    "ningbo",
    "ptb",
    "ptb-xl",
    "st_petersburg_incart",
]
PUBLISHED_RECORDS: Mapping[str, int] = {
    "chapman_shaoxing": 10_247,
    "cpsc_2018": 6_877,
    "cpsc_2018_extra": 3_453,
    "georgia": 10_344,
    "ningbo": 34_905,
    "ptb": 516,
    "ptb-xl": 21_837,
    "st_petersburg_incart": 74,
}
"""Records of each database (description of the Challenge 2021)."""

FACTS = CohortFacts(
    name="challenge2021",
    version="1.0.3",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://physionet.org/content/challenge-2021/1.0.3/",
    label_vocabulary="snomed",
    package=Path(__file__).parent,
    published_counts={"records": sum(PUBLISHED_RECORDS.values())},
)


@dataclass(frozen=True)
class Challenge2021(HeaderCohort):
    """The training set in the layout `training/<database>/g<k>/`, all of it or one database."""

    database: Database = "all"

    folder = "training"

    def __post_init__(self) -> None:
        if self.database not in get_args(Database):
            raise BuildError(f"database: expected one of {', '.join(get_args(Database))}, found {self.database!r}")

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`; a database on its own has a name of its own."""
        if self.database == "all":
            return FACTS
        name = f"{FACTS.name}_{self.database.replace('-', '_')}"
        return replace(FACTS, name=name, published_counts={"records": PUBLISHED_RECORDS[self.database]})

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"database": self.database}

    def takes(self, path: str) -> bool:
        """Records of the chosen database."""
        return self.database in ("all", _database(path))

    def key(self, row: Row) -> RowKey:
        """The record's name; no database of the Challenge tells whose a recording is."""
        return RowKey(PurePosixPath(row["path"]).name, "", "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        return replace(challenge_described(row["comments"]), site=_database(row["path"]))


def _database(path: str) -> str:
    """`georgia` of `training/georgia/g1/E00001`."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 else ""


def from_source(
    source: Path | None, downloads: Path, console: Console | None = None, database: Database = "all", **options: Any
) -> Challenge2021:
    """See `registry.make_cohort`."""
    wanted = ("training/",) if database == "all" else (f"training/{database}/",)
    folder = given_or_fetched(source, FACTS, downloads, "challenge-2021/1.0.3", console, wanted)
    return Challenge2021(folder, database=database, **options)
