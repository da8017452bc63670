"""What is special about MIMIC-IV-ECG: statements in eighteen columns, 29999 for "not measured", two folder layouts."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from rich.console import Console

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.text.reports import CleaningStyle, join_columns
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import OFFICIAL, CohortFacts, SplitRule
from tfds_builders.common.metadata import MetadataTable
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.schema import Sex
from tfds_builders.common.source_faults import measured, measurement
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import SHARES_TO_TRAIN_ON
from tfds_builders.common.stated import plausible_age, stated_codes
from tfds_builders.common.table_cohort import Row, RowError, TableCohort
from tfds_builders.mimic_iv_ecg import tables

IcdColumn = Literal["all_diag_all", "all_diag_hosp", "hosp_diag_hosp", "ed_diag_hosp", "ed_diag_ed"]

FACTS = CohortFacts(
    name="mimic_iv_ecg",
    version="1.0.0",
    access="open",
    licence="Open Data Commons Open Database License 1.0",
    homepage="https://physionet.org/content/mimic-iv-ecg/1.0/",
    label_vocabulary="icd10",
    package=Path(__file__).parent,
)
_JOINED_LICENCE = f"{FACTS.licence}; joined tables: PhysioNet Credentialed Health Data License 1.5.0"

_RATE_HZ = 500.0
_SPLIT_OF_FOLD = {str(fold): "train" for fold in range(18)} | {"18": "validation", "19": "test"}
"""Of Ext-ICD's twenty patient-grouped folds (our choice which are which)."""
_SEX: dict[str, Sex] = {"F": "female", "M": "male"}
_CENSORED_ANCHOR_AGE, _CENSORED_AGE_YEARS = 91, 90.0
"""MIMIC-IV writes 91 for every anchor age above 89."""
_BAND = re.compile(r"\s*([\d.]+)\s*-\s*([\d.]+)\s*Hz", re.IGNORECASE)
_NOTCH = re.compile(r"\b(50|60)\s*Hz\s+notch", re.IGNORECASE)
_ABSENT = ("", "nan", "none")
_MEASURED = {
    **{name: f"{name}_ms" for name in tables.INTERVALS},
    **{name: f"{name}_deg" for name in tables.AXES},
    "echo_lvef": "lvef_percent",
    "echo_gap_days": "echo_gap_days",
}
"""Column → what it is called in a record, with its unit."""


@dataclass(frozen=True)
class MimicIvEcg(TableCohort):
    """MIMIC-IV-ECG 1.0 (or the demo 0.1), with the tables of other projects that lie in the same folder."""

    report_cleaning: CleaningStyle = "mimic_iv_ecg"
    machine_measurements: bool = True
    """Whether machine_measurements.csv, which holds the reports, must be there; the demo has none."""
    icd_column: IcdColumn = "all_diag_all"
    """Which diagnoses of Ext-ICD become labels."""
    echo_window_days: float = 30.0
    """How far an echocardiogram may lie from the ECG on either side (our choice)."""

    table_name = tables.RECORDS
    stratify: ClassVar[Mapping[str, float]] = SHARES_TO_TRAIN_ON
    """Without Ext-ICD's folds."""

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`; with a credentialed table joined, what is built is credentialed."""
        if tables.has_credentialed_tables(self.source):
            return replace(FACTS, access="credentialed", licence=_JOINED_LICENCE)
        return FACTS

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {
            "report_cleaning": self.report_cleaning,
            "machine_measurements": self.machine_measurements,
            "icd_column": self.icd_column,
            "echo_window_days": self.echo_window_days,
        }

    def metadata(self) -> MetadataTable:
        """See `TableCohort.metadata`."""
        return tables.joined(self.source, self.machine_measurements, self.icd_column, self.echo_window_days)

    def key(self, row: Row) -> RowKey:
        """The study, its subject, and Ext-ICD's fold where it is at hand."""
        fold = row.get("icd_strat_fold", "").removesuffix(".0")
        return RowKey(row["study_id"].strip(), row["subject_id"].strip(), _SPLIT_OF_FOLD.get(fold, ""))

    def _with_splits(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> tuple[list[RowKey], SplitRule]:
        if self.splits_from is None and rows and "icd_strat_fold" in rows[0]:
            return list(keys), replace(OFFICIAL, note="strat_fold of MIMIC-IV-ECG-Ext-ICD: 0-17, 18, 19")
        return super()._with_splits(rows, keys)

    def strata(self, row: Row) -> Sequence[str]:
        """None: of 800,000 ECGs every split gets its share of everything."""
        return ()

    def path(self, row: Row) -> str:
        """The record in the layout of 1.0 (`files/pNNNN/pSUBJECT/…`) or of the demo (`files/pSUBJECT/…`)."""
        stated = row["path"].strip()
        if os.path.exists(os.path.join(self.source, f"{stated}.hea")):
            return stated
        other = _other_layout(stated)
        return other if os.path.exists(os.path.join(self.source, f"{other}.hea")) else stated

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        age_years, censored, age_reasons = _age(row)
        sex = _SEX.get(_first_stated(row, "gender", "icd_gender").upper(), "unknown")
        notch, band = _NOTCH.search(row.get("filtering", "")), _BAND.match(row.get("bandwidth", ""))
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            report=join_columns(row[column] for column in tables.REPORTS) if self.machine_measurements else None,
            labels=_icd_codes(row.get("icd_codes", "")),
            measurements=_measurements(row),
            device=row.get("cart_id", "").strip(),
            mains_hz=float(notch[1]) if notch else None,
            band_hz=(float(band[1]), float(band[2])) if band else None,
            reasons=age_reasons,
        )

    def check(self, record: ECGRecord) -> None:
        """Every file of the cohort is at 500 Hz."""
        if record.rate_hz != _RATE_HZ:
            raise ECGReadError.because(
                ReasonCode.header_lies,
                record.record_id,
                expected=f"{_RATE_HZ:g} Hz, as in all of MIMIC-IV-ECG",
                found=f"{record.rate_hz:g} Hz in the header",
                remedy="Download the record again, or leave it out.",
            )


def _other_layout(stated: str) -> str:
    """`files/p1000/p10000032/…` for `files/p10000032/…` and the other way round."""
    head, *rest = PurePosixPath(stated).parts or ("",)
    if len(rest) > 1 and rest[1].startswith(rest[0]):
        return str(PurePosixPath(head, *rest[1:]))
    return str(PurePosixPath(head, rest[0][:5], *rest)) if rest else stated


def _first_stated(row: Row, *columns: str) -> str:
    cells = (row.get(column, "").strip() for column in columns)
    return next((cell for cell in cells if cell.lower() not in _ABSENT), "")


def _age(row: Row) -> tuple[float | None, bool, tuple[str, ...]]:
    """Age at the ECG, whether it is a lower bound, and what the audit should say.

    MIMIC-IV's anchor comes first: age then plus the years between. Ext-ICD's own age follows.
    """
    anchor = [measurement(row.get(column, "")) for column in ("anchor_age", "anchor_year")]
    year = measurement(row["ecg_time"][:4])
    if anchor[0] is not None and anchor[1] is not None and year is not None:
        if anchor[0] >= _CENSORED_ANCHOR_AGE:
            return _CENSORED_AGE_YEARS, True, ()
        age_years, reasons = plausible_age(str(anchor[0] + year - anchor[1]))
        return age_years, False, reasons
    stated = _first_stated(row, "icd_age")
    if not stated:  # the project alone tells no age of anybody: no news for every record of the audit
        return None, False, ()
    age_years, reasons = plausible_age(stated)
    return age_years, False, reasons


def _measurements(row: Row) -> tuple[tuple[str, float], ...]:
    """What the machine and an echocardiogram near the ECG measured; 29999 and empty cells are left out."""
    return measured((name, row.get(column, "")) for column, name in _MEASURED.items())


def _icd_codes(cell: str) -> tuple[tuple[str, float], ...]:
    """ICD-10 codes of Ext-ICD's list, which is a Python literal.

    Raises:
      RowError: `labels_malformed`.
    """
    if cell.strip().lower() in _ABSENT:
        return ()
    try:
        codes = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        codes = None
    if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        raise RowError(
            BuildReason.labels_malformed, f"diagnoses: expected a list such as ['I4891'], found {cell[:60]!r}"
        )
    return stated_codes(dict.fromkeys(codes))


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> MimicIvEcg:
    """See `registry.make_cohort`; never downloaded."""
    return MimicIvEcg(given_folder(source, FACTS), **options)
