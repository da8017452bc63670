"""Cells and comments about people and findings, as cohorts write them: what they say, or why they say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tfds_builders.common.audit import BuildReason
from tfds_builders.common.records import Described
from tfds_builders.common.schema import Sex

STATED_PERCENT = 100.0
"""Likelihood of a code that its source gives without one."""
_SEX: Mapping[str, Sex] = {"m": "male", "male": "male", "f": "female", "female": "female"}
NOT_STATED = frozenset({"", "nan", "unknown", "n/a", "none", "?"})
_CENSORED_AGE, _CENSORED_AGE_YEARS = 300.0, 90.0
"""PTB-XL's "above 89", which its copies carry on."""


def stated_codes(codes: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """Codes that are simply stated, as labels, in their order."""
    return tuple((code, STATED_PERCENT) for code in codes)


def stated_person(age: str, sex: str) -> Described:
    """Age and sex as two cells say them, with what the audit should say; `dataclasses.replace` adds the rest."""
    age_years, censored, age_reasons = stated_age(age)
    harmonised, sex_reasons = stated_sex(sex)
    return Described(age_years=age_years, age_censored=censored, sex=harmonised, reasons=(*age_reasons, *sex_reasons))


def stated_sex(text: str) -> tuple[Sex, tuple[str, ...]]:
    """Sex, and what the audit should say."""
    sex = _SEX.get(text.strip().lower(), "unknown")
    return sex, (BuildReason.sex_unknown.value,) if sex == "unknown" else ()


def stated_age(text: str) -> tuple[float | None, bool, tuple[str, ...]]:
    """Age in years, whether it is a lower bound (300, `>89`), and what the audit should say."""
    text = text.strip()
    if text.lower() in NOT_STATED:
        return None, False, (BuildReason.age_unknown.value,)
    if text.startswith(">") or _is(text, _CENSORED_AGE):
        return _CENSORED_AGE_YEARS, True, ()
    age_years, reasons = plausible_age(text)
    return age_years, False, reasons


def plausible_age(text: str, *, oldest_years: float = 120.0) -> tuple[float | None, tuple[str, ...]]:
    """Age in years from a cell, and what the audit should say: unknown if empty, refused if no human is so old."""
    if not text.strip():
        return None, (BuildReason.age_unknown.value,)
    return plausible(text, (0.0, oldest_years), BuildReason.age_out_of_range)


def plausible(text: str, limits: tuple[float, float], reason: BuildReason) -> tuple[float | None, tuple[str, ...]]:
    """A number from a cell: None if empty; None and `reason` for the audit if it is no number within `limits`."""
    if not text.strip():
        return None, ()
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    return (number, ()) if limits[0] <= number <= limits[1] else (None, (reason.value,))


def _is(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False
