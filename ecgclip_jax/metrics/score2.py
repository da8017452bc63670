"""SCORE2 and SCORE2-OP: the ten-year risk of a first cardiovascular event from age, sex and five measurements.

SCORE2 (Eur Heart J 2021;42:2439) is meant for people of 40-69 years without diabetes, SCORE2-OP (ibid. 2455) for those
from 70 on. Coefficients are the published ones, rounded to four decimals, and scales to four and two. Both make a
linear predictor of centred risk factors, a risk in the derivation cohort, and a recalibration to one of four regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

Region = Literal["low", "moderate", "high", "very_high"]
YOUNGEST_YEARS, OLDEST_YEARS = 40.0, 89.0
"""Ages beyond are taken as these (ours: SCORE2 begins at 40, and SCORE2-OP's charts end at 89)."""

_Column = Float[np.ndarray, " people"]


@dataclass(frozen=True)
class RiskFactors:
    """One row per person; NaN = unknown. Smoking (current) and diabetes are 0 or 1."""

    age_years: _Column
    male: _Column
    smoker: _Column
    diabetes: _Column
    """Counts in SCORE2-OP only."""
    systolic_mmhg: _Column
    total_cholesterol_mmol_l: _Column
    hdl_cholesterol_mmol_l: _Column


@dataclass(frozen=True)
class _Model:
    """One sex: coefficients of the centred terms and of their products with age, baseline survival, recalibration."""

    age: float
    terms: tuple[float, float, float, float, float]
    """Smoking, diabetes, systolic pressure, total cholesterol, HDL cholesterol."""
    with_age: tuple[float, float, float, float, float]
    survival: float
    centre: float
    scales: Mapping[Region, tuple[float, float]]


def _scales(*pairs: tuple[float, float]) -> Mapping[Region, tuple[float, float]]:
    regions: tuple[Region, ...] = ("low", "moderate", "high", "very_high")
    return MappingProxyType(dict(zip(regions, pairs, strict=True)))


_SCORE2_MEN = _Model(
    0.3742,
    (0.6012, 0.0, 0.2777, 0.1458, -0.2698),
    (-0.0755, 0.0, -0.0255, -0.0281, 0.0426),
    survival=0.9605,
    centre=0.0,
    scales=_scales((-0.5699, 0.7476), (-0.1565, 0.8009), (0.3207, 0.9360), (0.5836, 0.8294)),
)
_SCORE2_WOMEN = _Model(
    0.4648,
    (0.7744, 0.0, 0.3131, 0.1002, -0.2606),
    (-0.1088, 0.0, -0.0277, -0.0226, 0.0613),
    survival=0.9776,
    centre=0.0,
    scales=_scales((-0.7380, 0.7019), (-0.3143, 0.7701), (0.5710, 0.9369), (0.9412, 0.8329)),
)
_OP_MEN = _Model(
    0.0634,
    (0.3524, 0.4245, 0.0094, 0.0850, -0.3564),
    (-0.0247, -0.0174, -0.0005, 0.0073, 0.0091),
    survival=0.7576,
    centre=0.0929,
    scales=_scales((-0.34, 1.19), (0.01, 1.25), (0.08, 1.15), (0.05, 0.70)),
)
_OP_WOMEN = _Model(
    0.0789,
    (0.4921, 0.6010, 0.0102, 0.0605, -0.3040),
    (-0.0255, -0.0107, -0.0004, -0.0009, 0.0154),
    survival=0.8082,
    centre=0.229,
    scales=_scales((-0.52, 1.01), (-0.10, 1.10), (0.38, 1.09), (0.38, 0.69)),
)


def ten_year_risk(people: RiskFactors, region: Region, older_from_years: float = 70.0) -> _Column:
    """Risk as a fraction: SCORE2 below `older_from_years`, SCORE2-OP from there on; NaN where an input is unknown.

    Diabetes may be unknown below that age: SCORE2 as published for use does not take it.
    """
    older = people.age_years >= older_from_years
    return np.where(older, score2_op(people, region), score2(people, region))


def score2(people: RiskFactors, region: Region) -> _Column:
    """SCORE2, `[people]` float64; its diabetes terms are left out, as they are where it is used."""
    age = (np.clip(people.age_years, YOUNGEST_YEARS, OLDEST_YEARS) - 60) / 5
    terms = (
        people.smoker,
        np.zeros_like(people.smoker),
        (people.systolic_mmhg - 120) / 20,
        people.total_cholesterol_mmol_l - 6,
        (people.hdl_cholesterol_mmol_l - 1.3) / 0.5,
    )
    return _by_sex(people.male, age, terms, (_SCORE2_MEN, _SCORE2_WOMEN), region)


def score2_op(people: RiskFactors, region: Region) -> _Column:
    """SCORE2-OP, `[people]` float64."""
    age = np.clip(people.age_years, YOUNGEST_YEARS, OLDEST_YEARS) - 73
    terms = (
        people.smoker,
        people.diabetes,
        people.systolic_mmhg - 150,
        people.total_cholesterol_mmol_l - 6,
        people.hdl_cholesterol_mmol_l - 1.4,
    )
    return _by_sex(people.male, age, terms, (_OP_MEN, _OP_WOMEN), region)


def _by_sex(
    male: _Column, age: _Column, terms: tuple[_Column, ...], models: tuple[_Model, _Model], region: Region
) -> _Column:
    men, women = (_risk(age, terms, model, region) for model in models)
    known: Bool[np.ndarray, " people"] = ~np.isnan(male)
    return np.where(known, np.where(male == 1, men, women), np.nan)


def _risk(age: _Column, terms: tuple[_Column, ...], model: _Model, region: Region) -> _Column:
    predictor = model.age * age - model.centre
    for term, alone, by_age in zip(terms, model.terms, model.with_age, strict=True):
        predictor = predictor + alone * term + by_age * age * term
    # ln(-ln(1 - r)) of the uncalibrated risk r = 1 - survival ** exp(predictor), without the powers in between.
    first, second = model.scales[region]
    log_hazard = predictor + np.log(-np.log(model.survival))
    risk: _Column = -np.expm1(-np.exp(first + second * log_hazard))
    return risk
