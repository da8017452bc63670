"""What is special about PTB: a clinical summary in every header, fifteen leads, folders as patients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from rich.console import Console

from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort, fields
from tfds_builders.common.records import Clinical, Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.stated import stated_codes, stated_person
from tfds_builders.common.table_cohort import Row

FACTS = CohortFacts(
    name="ptb",
    version="1.0.0",
    access="open",
    licence="Open Data Commons Attribution License 1.0",
    homepage="https://physionet.org/content/ptbdb/1.0.0/",
    label_vocabulary="ptb",
    package=Path(__file__).parent,
    published_counts={"records": 549, "patients": 290},
)
_PATIENT = re.compile(r"patient\d+")
_NOTHING = frozenset({"", "n/a", "no", "none", "unknown", "not available"})
_YES_OR_NO: Final[Mapping[str, float]] = {"yes": 1.0, "no": 0.0}
_SYSTOLIC = re.compile(r"\s*(\d{2,3})\s*/\s*\d{2,3}\s*mmHg", re.IGNORECASE)
_INFARCTION: Final = ("acute infarction (localization)", "former infarction (localization)")


@dataclass(frozen=True)
class Ptb(HeaderCohort):
    """`ptbdb` 1.0.0 in the layout `patientNNN/sNNNN_re`."""

    own_facts = FACTS

    def takes(self, path: str) -> bool:
        """Records in a patient's folder."""
        return _patient(path) != ""

    def key(self, row: Row) -> RowKey:
        """The folder is the patient."""
        path = row["path"]
        return RowKey(PurePosixPath(path).name, _patient(path), "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        stated = fields(row["comments"])
        return replace(
            stated_person(stated.get("age", ""), stated.get("sex", "")),
            clinical=_clinical(stated),
            labels=_diagnoses(stated),
        )


def _patient(path: str) -> str:
    folder = PurePosixPath(path).parent.name
    return folder if _PATIENT.fullmatch(folder) else ""


def _diagnoses(stated: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """Reason for admission, where an infarction was or is, and additional diagnoses: verbatim, blanks made single."""
    texts = [stated.get("reason for admission", "")]
    texts += [f"{name}: {stated[name]}" for name in _INFARCTION if stated.get(name, "").lower() not in _NOTHING]
    texts += re.split(r"[,;]", stated.get("additional diagnoses", ""))
    codes = (" ".join(text.split()) for text in texts if text.strip().lower() not in _NOTHING)
    return stated_codes(dict.fromkeys(codes))


def _clinical(stated: Mapping[str, str]) -> Clinical:
    """Risk factors that the summary states. Diabetes that is not mentioned is unknown, not absent."""
    pressure = next((value for name, value in stated.items() if name.startswith("peripheral blood pressure")), "")
    systolic = _SYSTOLIC.match(pressure)
    has_diabetes = "diabetes" in stated.get("additional diagnoses", "").lower()
    return Clinical(
        smoker=_YES_OR_NO.get(stated.get("smoker", "").lower()),
        diabetes=1.0 if has_diabetes else None,
        systolic_mmhg=float(systolic[1]) if systolic else None,
    )


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Ptb:
    """See `registry.make_cohort`."""
    return Ptb(given_or_fetched(source, FACTS, downloads, "ptbdb/1.0.0", console, ("patient",)), **options)
