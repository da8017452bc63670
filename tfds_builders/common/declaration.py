"""`cohort.yaml`: how a user says what the columns of a table, or the comments of headers, mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import AccessClass, BuildError, CohortFacts
from tfds_builders.common.records import Described
from tfds_builders.common.schema import Sex
from tfds_builders.common.stated import stated_age, stated_codes
from tfds_builders.common.table_cohort import TableCohort

FILE_NAME = "cohort.yaml"
_MAX_BYTES = 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Names of the table's columns; what is left out is unknown of every recording."""

    path: str
    """The ECG file, relative to the folder."""
    record: str | None = None
    """Unique id; the file's name where left out."""
    patient: str | None = None
    split: str | None = None
    """`train`, `validation` or `test`; ours are made where left out."""
    age: str | None = None
    sex: str | None = None
    report: str | None = None
    labels: str | None = None
    site: str | None = None
    device: str | None = None
    measurements: tuple[str, ...] = ()
    """Columns of numbers, unit in the name."""


class Comments(_Strict):
    """Names of the headers' comments (`# Age: 74` is `age`); what is left out is unknown of every recording."""

    patient: str | None = None
    """The comment with the patient's id, or `folder`: each folder is a patient."""
    age: str | None = "age"
    sex: str | None = "sex"
    report: str | None = None
    labels: str | None = "dx"


class CohortDeclaration(_Strict):
    """What every declaration says."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,60}$")
    version: str = Field(default="1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    access: AccessClass = "private"
    """Above `open`, whatever is derived holds no waveform, text or original id."""
    licence: str
    homepage: str = ""
    label_vocabulary: str = "own"
    """Vocabulary of the labels, such as `snomed`, if concepts are to follow from them."""
    label_separator: str = Field(default=";", min_length=1)
    female: tuple[str, ...] = ("F", "f", "female", "Female")
    male: tuple[str, ...] = ("M", "m", "male", "Male")

    def facts(self, package: Path) -> CohortFacts:
        """As a cohort declares them."""
        return CohortFacts(
            name=self.name,
            version=self.version,
            access=self.access,
            licence=self.licence,
            homepage=self.homepage,
            label_vocabulary=self.label_vocabulary,
            package=package,
        )

    def person(self, age: str | None, sex: str | None) -> Described:
        """Age and sex as a recording states them; None where nothing is named for it, which is no fault of the row."""
        age_years, censored, age_reasons = stated_age(age or "")
        harmonised = self._sex(sex or "")
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=harmonised,
            reasons=(
                *(() if age is None else age_reasons),
                *((BuildReason.sex_unknown.value,) if harmonised == "unknown" and sex is not None else ()),
            ),
        )

    def _sex(self, cell: str) -> Sex:
        text = cell.strip()
        return "female" if text in self.female else "male" if text in self.male else "unknown"

    def labels_of(self, cell: str) -> tuple[tuple[str, float], ...]:
        """Codes of a cell, each once."""
        codes = (code.strip() for code in cell.split(self.label_separator))
        return stated_codes(dict.fromkeys(code for code in codes if code))


class TableDeclaration(CohortDeclaration):
    """A folder of ECG files and a table."""

    table: str
    """CSV or Parquet, relative to the folder."""
    columns: Columns
    report_cleaning: Literal["plain", "merl", "ptb_xl", "mimic_iv_ecg"] = "plain"


class HeaderDeclaration(CohortDeclaration):
    """A folder of WFDB records, about which their headers say everything."""

    comments: Comments = Comments()


Declaration = TypeVar("Declaration", bound=BaseModel)


def read_declaration(folder: Path, kind: type[Declaration]) -> Declaration:
    """Reads `cohort.yaml` of a folder.

    Raises:
      BuildError: no such file, no YAML, or a field that is missing, unknown or of another kind.
    """
    path = folder / FILE_NAME
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        raise BuildError(
            f"{folder} holds no {FILE_NAME}, which says what the cohort is; the builder's README shows one"
        )
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BuildError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()
        )
        raise BuildError(f"{path}: {faults}") from error


@dataclass(frozen=True)
class DeclaredCohort(TableCohort):
    """A user's own cohort, of which `cohort.yaml` says everything; `own_facts` stand in until it is read."""

    @property
    @abstractmethod
    def declaration(self) -> CohortDeclaration:
        """What `cohort.yaml` says."""

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return self.declaration.facts(self.own_facts.package)

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`: the whole declaration."""
        return self.declaration.model_dump(mode="json")


def undeclared(package: Path) -> CohortFacts:
    """What stands in for a cohort that is not declared yet."""
    return CohortFacts(
        name=package.name,
        version="1.0.0",
        access="private",
        licence="the cohort's own",
        homepage="the folder that you name",
        label_vocabulary="own",
        package=package,
    )
