"""What is special about CPSC 2018: the same recordings in two forms, each with its own codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ecgclip_jax.signal.matlab import read_cpsc_struct
from ecgclip_jax.signal.record import ECGRecord
from tfds_builders.challenge2021.cohort import Challenge2021
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import Cohort, CohortFacts
from tfds_builders.common.metadata import MetadataTable, read_csv
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.stated import stated_codes, stated_person
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="cpsc2018",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International (as part of the Challenge 2021; CPSC itself states none)",
    homepage="http://2018.icbeb.org/Challenge.html",
    label_vocabulary="cpsc2018",
    package=Path(__file__).parent,
    published_counts={"records": 6_877},
)
_LABELS = ("First_label", "Second_label", "Third_label")
_CODES = frozenset("123456789")


@dataclass(frozen=True)
class Cpsc2018(TableCohort):
    """The native form: `REFERENCE.csv` and MATLAB structs, in `TrainingSet` or loose; codes 1 to 9."""

    own_facts = FACTS
    table_name = "REFERENCE.csv"
    columns = ("Recording", *_LABELS)

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"form": "native"}

    def metadata(self) -> MetadataTable:
        """REFERENCE.csv, which lies beside the recordings or above them."""
        inside = self.source / "TrainingSet" / self.table_name
        return read_csv(inside if inside.is_file() else self.source / self.table_name, self.columns)

    def key(self, row: Row) -> RowKey:
        """The recording's name; whose it is is not stated."""
        return RowKey(row["Recording"].strip(), "", "")

    def path(self, row: Row) -> str:
        """The struct, in `TrainingSet` or loose."""
        name = f"{row['Recording'].strip()}.mat"
        inside = f"TrainingSet/{name}"
        return inside if (self.source / inside).exists() else name

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`."""
        return read_cpsc_struct(self.source / self.path(row), root=self.source)

    def describe(self, row: Row) -> Described:
        """The classes; see `complete` for age and sex."""
        return Described(labels=_classes(row))

    def complete(self, described: Described, record: ECGRecord) -> Described:
        """Age and sex, which stand in the struct."""
        age = record.facts.age_years
        person = stated_person("" if age is None else str(age), record.facts.sex or "")
        return replace(person, labels=described.labels)


@dataclass(frozen=True)
class Cpsc2018Challenge(Challenge2021):
    """The same recordings as the Challenge 2021 has them (`training/cpsc_2018`); SNOMED CT codes."""

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return replace(FACTS, label_vocabulary="snomed")

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"form": "challenge"}


def _classes(row: Row) -> tuple[tuple[str, float], ...]:
    """One to three of the nine classes.

    Raises:
      RowError: `labels_malformed`.
    """
    cells = [row[column].strip().removesuffix(".0") for column in _LABELS]
    codes = [cell for cell in cells if cell]
    if not codes or any(code not in _CODES for code in codes):
        raise RowError(BuildReason.labels_malformed, f"labels: expected one to three of 1 to 9, found {cells}")
    return stated_codes(dict.fromkeys(codes))


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Cohort:
    """The native form where `source` holds a REFERENCE.csv, else the Challenge's, which is also what is downloaded.

    See `registry.make_cohort`.
    """
    folder = given_or_fetched(source, FACTS, downloads, "challenge-2021/1.0.3", console, ("training/cpsc_2018/",))
    if (folder / Cpsc2018.table_name).is_file() or (folder / "TrainingSet" / Cpsc2018.table_name).is_file():
        return Cpsc2018(folder, **options)
    return Cpsc2018Challenge(folder, database="cpsc_2018", **options)
