"""What is special about HEEDB: labels are 12SL codes, of which a dictionary makes statements and these a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, Literal

from rich.console import Console

from ecgclip_jax.text.reports import join_columns
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.metadata import MetadataTable
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.schema import Sex
from tfds_builders.common.source_faults import measurement, split_codes
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import SHARES_TO_TRAIN_ON
from tfds_builders.common.stated import plausible_age, stated_codes
from tfds_builders.common.table_cohort import Row, RowError, TableCohort
from tfds_builders.heedb import tables
from tfds_builders.heedb.tables import HOSPITALS, LabelSource, Selection

FACTS = CohortFacts(
    name="heedb",
    version="5.0.0",
    access="credentialed",
    licence="Brain Data Science Platform: credentialed access under its data use agreement",
    homepage="https://bdsp.io/content/heedb/5.0/",
    label_vocabulary="12sl",
    package=Path(__file__).parent,
)
_PUBLISHED: Final = {"records": 10_471_531 + 968_680, "patients": 1_818_247 + 349_548}
"""Of version 4, both hospitals."""
_SEX: Final[Mapping[str, Sex]] = {"female": "female", "f": "female", "male": "male", "m": "male"}


@dataclass(frozen=True)
class Heedb(TableCohort):
    """HEEDB as published from 3.0 on (a folder per hospital), or 2.0 (`Metadata` and `ECG/WFDB`)."""

    hospital: Literal["all", "I0001", "I0006"] = "all"
    first_year: int = 0
    """Years of acquisition, both included, as the records' folders state them."""
    last_year: int = 9999
    labels_from: LabelSource = "physician"
    """Whose 12SL codes become labels and report: physicians' over-reads, the software's of the time, or 12SL v24's."""

    table_name = "metadata.csv"
    stratify: ClassVar[Mapping[str, float]] = SHARES_TO_TRAIN_ON

    def __post_init__(self) -> None:
        if self.first_year > self.last_year:
            raise BuildError(f"first_year {self.first_year} lies after last_year {self.last_year}")

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`; the published counts are those of the whole cohort."""
        whole = (self.hospital, self.first_year, self.last_year) == ("all", 0, 9999)
        return replace(FACTS, published_counts=_PUBLISHED) if whole else FACTS

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {
            "hospital": self.hospital,
            "first_year": self.first_year,
            "last_year": self.last_year,
            "labels_from": self.labels_from,
        }

    @property
    def selection(self) -> Selection:
        """What is wanted of the tables."""
        hospitals = tuple(hospital for hospital in HOSPITALS if self.hospital in ("all", hospital))
        return Selection(hospitals, self.first_year, self.last_year, self.labels_from)

    def metadata(self) -> MetadataTable:
        """See `TableCohort.metadata`."""
        return tables.joined(self.source, self.selection)

    def key(self, row: Row) -> RowKey:
        """The record with its hospital; patients of two hospitals are never one."""
        hospital = row[tables.HOSPITAL]
        patient = first_of(row, tables.PATIENT_COLUMNS).removesuffix(".0")
        record = row[tables.RECORD]
        return RowKey(f"{hospital}/{record}" if record else "", f"{hospital}-{patient}" if patient else "", "")

    def strata(self, row: Row) -> Sequence[str]:
        """None: of millions of ECGs every split gets its share of everything."""
        return ()

    def path(self, row: Row) -> str:
        """The record below its hospital's WFDB folder."""
        return f"{row[tables.FOLDER]}/{row[tables.RECORD]}"

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        if row[tables.DUPLICATED]:
            raise RowError(BuildReason.listed_as_duplicate, "duplicated.csv of the publisher names it")
        age_years, age_reasons = age_of(row)
        sex = _SEX.get(first_of(row, tables.SEX_COLUMNS).lower(), "unknown")
        codes = codes_of(row[tables.CODES])
        words = tables.dictionary((self.source / row[tables.FOLDER]).parent)
        part = next(iter(PurePosixPath(row[tables.RECORD]).parts[:-1]), "")
        return Described(
            age_years=age_years,
            sex=sex,
            report=None if self.labels_from == "none" else join_columns(words[code] for code in codes if code in words),
            labels=stated_codes(words.get(code, code) for code in codes),
            site=f"{row[tables.HOSPITAL]} {part}" if part.startswith("S") else row[tables.HOSPITAL],
            reasons=(*age_reasons, *((BuildReason.sex_unknown.value,) if sex == "unknown" else ())),
        )


def first_of(row: Row, columns: Sequence[str]) -> str:
    """The first cell of these columns that says something; hospitals name them differently."""
    cells = (row.get(column, "").strip() for column in columns)
    return next((cell for cell in cells if cell.lower() not in ("", "nan", "none")), "")


def age_of(row: Row) -> tuple[float | None, tuple[str, ...]]:
    """Age in years, and what the audit should say."""
    for column, per_year in tables.AGE_UNITS_PER_YEAR.items():
        if (stated := measurement(row.get(column, ""))) is not None:
            return plausible_age(str(stated / per_year))
    return None, (BuildReason.age_unknown.value,)


def codes_of(cell: str) -> tuple[str, ...]:
    """12SL codes of a cell such as `19, 22`, each once.

    Raises:
      RowError: `labels_malformed`.
    """
    if cell.strip().lower() in ("", "nan", "none"):
        return ()
    codes = tuple(dict.fromkeys(code.removesuffix(".0") for code in split_codes(cell)))
    if wrong := [code for code in codes if not (code.isascii() and code.isdigit())]:
        raise RowError(BuildReason.labels_malformed, f"codes: expected 12SL numbers, found {wrong[0][:40]!r}")
    return codes


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Heedb:
    """See `registry.make_cohort`; never downloaded."""
    return Heedb(given_folder(source, FACTS), **options)
