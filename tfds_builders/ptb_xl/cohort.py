"""What is special about PTB-XL: its table, its folds, its codes, and the two ways in which it says "unknown"."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.text.reports import CleaningStyle
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.download import Publisher
from tfds_builders.common.records import Clinical, Described, RowKey
from tfds_builders.common.schema import Sex
from tfds_builders.common.sources import given_folder
from tfds_builders.common.stated import plausible, plausible_age
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

VERSION = "1.0.3"
SOURCE_URL = f"https://physionet.org/files/ptb-xl/{VERSION}"
RateHz = Literal[500, 100]

FACTS = CohortFacts(
    name="ptb_xl",
    version=VERSION,
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage=f"https://physionet.org/content/ptb-xl/{VERSION}/",
    label_vocabulary="scp",
    package=Path(__file__).parent,
)

_PATH_COLUMNS: dict[RateHz, str] = {500: "filename_hr", 100: "filename_lr"}
_SPLIT_OF_FOLD = {str(fold): "train" for fold in range(1, 9)} | {"9": "validation", "10": "test"}
_SEX: dict[str, Sex] = {"0": "male", "1": "female"}
_CENSORED_AGE = 300.0
"""Stands for every age above 89 (dataset description)."""
_CENSORED_AGE_YEARS = 90.0
_HEIGHT_CM, _WEIGHT_KG = (40.0, 230.0), (2.0, 300.0)
"""What a patient can be, infants included; other cells are slips of the pen and stay unknown."""


@dataclass(frozen=True)
class PtbXl(TableCohort):
    """PTB-XL 1.0.3 in its native layout: `ptbxl_database.csv` beside `records500` and `records100`."""

    own_facts = FACTS
    rate_hz: RateHz = 500
    """Which of the two published forms: 500 Hz as recorded, or the authors' 100 Hz version."""
    report_cleaning: CleaningStyle = "ptb_xl"

    table_name = "ptbxl_database.csv"
    stratify = None
    columns = (
        "ecg_id",
        "patient_id",
        "age",
        "sex",
        "height",
        "weight",
        "site",
        "device",
        "report",
        "scp_codes",
        "strat_fold",
        *_PATH_COLUMNS.values(),
    )

    def __post_init__(self) -> None:
        if self.rate_hz not in get_args(RateHz):
            raise BuildError(f"PTB-XL is published at 500 and 100 Hz; {self.rate_hz} Hz was asked for")

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"rate_hz": self.rate_hz, "report_cleaning": self.report_cleaning}

    def key(self, row: Row) -> RowKey:
        """The authors' own folds: 1-8 train, 9 and 10 (human-validated) choose and test."""
        split = _SPLIT_OF_FOLD.get(_integer(row["strat_fold"]), "")
        return RowKey(row["ecg_id"].strip(), _integer(row["patient_id"]), split)

    def path(self, row: Row) -> str:
        """See `TableCohort.path`."""
        return row[_PATH_COLUMNS[self.rate_hz]]

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        censored = _is_number(row["age"], _CENSORED_AGE)
        age_years, reasons = (_CENSORED_AGE_YEARS, ()) if censored else plausible_age(row["age"])
        sex = _SEX.get(_integer(row["sex"]), "unknown")
        sex_reasons = (BuildReason.sex_unknown.value,) if sex == "unknown" else ()
        height_cm, height_reasons = plausible(row["height"], _HEIGHT_CM, BuildReason.height_out_of_range)
        weight_kg, weight_reasons = plausible(row["weight"], _WEIGHT_KG, BuildReason.weight_out_of_range)
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            clinical=Clinical(height_cm=height_cm, weight_kg=weight_kg),
            report=row["report"],
            labels=_scp_codes(row["scp_codes"]),
            site=_integer(row["site"]),
            device=row["device"].strip(),
            reasons=(*reasons, *sex_reasons, *height_reasons, *weight_reasons),
        )

    def check(self, record: ECGRecord) -> None:
        """Every file of `records500` is at 500 Hz and of `records100` at 100 Hz."""
        if record.rate_hz != self.rate_hz:
            raise ECGReadError.because(
                ReasonCode.header_lies,
                record.record_id,
                expected=f"{self.rate_hz} Hz, as in all of records{self.rate_hz}",
                found=f"{record.rate_hz:g} Hz in the header",
                remedy="Download the record again, or leave it out.",
            )


def _integer(cell: str) -> str:
    """Whole numbers that passed through a float column ("15709.0"), as text without the fraction."""
    head, dot, fraction = cell.strip().partition(".")
    return head if dot and not fraction.strip("0") else cell.strip()


def _is_number(cell: str, number: float) -> bool:
    try:
        return float(cell) == number
    except ValueError:
        return False


def _scp_codes(cell: str) -> tuple[tuple[str, float], ...]:
    """The statements with their likelihoods in percent (0 = likelihood unknown), in the table's order.

    Raises:
      RowError: `labels_malformed`; a record with unknown labels would count as negative for all of them.
    """
    try:
        codes = ast.literal_eval(cell)  # a Python literal, never evaluated as code
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        codes = None
    if not isinstance(codes, dict) or not all(
        isinstance(code, str) and isinstance(value, int | float) for code, value in codes.items()
    ):
        raise RowError(
            BuildReason.labels_malformed,
            f"scp_codes: expected a dict of code to likelihood such as {{'NORM': 100.0}}, found {cell[:60]!r}",
        )
    return tuple((code, float(value)) for code, value in codes.items())


def download(folder: Path, rate_hz: RateHz, console: Console | None = None, url: str = SOURCE_URL) -> Path:
    """Fetches the table and the records of one rate into `folder`; what is there already is not fetched again.

    Raises:
      BuildError: without a network, or if a file's SHA-256 stays wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    publisher = Publisher(url)
    sums = publisher.sums(folder)
    wanted = (PtbXl.table_name, "scp_statements.csv", "LICENSE.txt", f"records{rate_hz}/")
    publisher.fetch([name for name in sums if name.startswith(wanted)], sums, folder, console)
    return folder


def from_source(
    source: Path | None, downloads: Path, console: Console | None = None, rate_hz: RateHz = 500, **options: Any
) -> PtbXl:
    """See `registry.make_cohort`."""
    folder = given_folder(source, FACTS) if source else download(downloads, rate_hz, console)
    return PtbXl(folder, rate_hz=rate_hz, **options)
