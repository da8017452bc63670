"""`cohort.yaml`: how a user says what the columns of a table, or the comments of headers, mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfds_builders.common.cohort import AccessClass, BuildError, CohortFacts
from tfds_builders.common.schema import Sex

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


class _Cohort(_Strict):
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

    def sex_of(self, cell: str) -> Sex:
        """Sex by the words that the declaration gives for it."""
        text = cell.strip()
        return "female" if text in self.female else "male" if text in self.male else "unknown"

    def labels_of(self, cell: str) -> tuple[tuple[str, float], ...]:
        """Codes of a cell, each once."""
        codes = (code.strip() for code in cell.split(self.label_separator))
        return tuple((code, 100.0) for code in dict.fromkeys(code for code in codes if code))


class TableDeclaration(_Cohort):
    """A folder of ECG files and a table."""

    table: str
    """CSV or Parquet, relative to the folder."""
    columns: Columns
    report_cleaning: Literal["plain", "merl", "ptb_xl", "mimic_iv_ecg"] = "plain"


class HeaderDeclaration(_Cohort):
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
