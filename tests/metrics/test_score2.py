"""SCORE2 and SCORE2-OP against published examples and another implementation's tests, and where they must be unknown.

`R` rows: the expected values of the R package RiskScorescvd (dvicencio/RiskScorescvd, tests/testthat, taken there from
table 4 of SCORE2's and table 3 of SCORE2-OP's supplementary methods and from heartscore.org). estimateCVRisk
(DGruen89/estimateCVRisk) has 18.56 and 15.16 for the SCORE2-OP example, and the authors' own Stata program
`score2oprisk` holds the coefficients in full, which the published ones round.
"""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.metrics.score2 import RiskFactors, score2, score2_op, ten_year_risk


def person(
    age: float, male: float, smoker: float, systolic: float, total: float, hdl: float, diabetes: float = 0.0
) -> RiskFactors:
    columns = (age, male, smoker, diabetes, systolic, total, hdl)
    return RiskFactors(*(np.array([value], np.float64) for value in columns))


@pytest.mark.parametrize(
    ("region", "who", "percent"),
    [
        ("low", (50, 1, 1, 140, 5.5, 1.3), 5.9),
        ("low", (50, 0, 1, 140, 5.5, 1.3), 4.2),
        ("very_high", (50, 1, 1, 140, 5.5, 1.3), 14.0),
        ("very_high", (50, 0, 1, 140, 5.5, 1.3), 13.7),
        # R, table 4
        ("low", (50, 1, 1, 140, 6.3, 1.4), 6.3),
        ("low", (50, 0, 1, 140, 6.3, 1.4), 4.3),
        ("moderate", (50, 1, 1, 140, 6.3, 1.4), 8.1),
        ("moderate", (50, 0, 1, 140, 6.3, 1.4), 5.2),
        ("high", (50, 1, 1, 140, 6.3, 1.4), 8.8),
        ("high", (50, 0, 1, 140, 6.3, 1.4), 7.1),
        ("very_high", (50, 1, 1, 140, 6.3, 1.4), 15.1),
        ("very_high", (50, 0, 1, 140, 6.3, 1.4), 14.1),
        # R, heartscore.org
        ("low", (45, 1, 0, 110, 5, 2), 1.1),
        ("very_high", (45, 0, 1, 140, 5, 2), 6.0),
        ("high", (48, 1, 1, 160, 8, 2), 10.0),
        # R, SCORE2-OP, table 3
        ("low", (75, 1, 1, 140, 5.5, 1.3), 18.6),
        ("low", (75, 0, 1, 140, 5.5, 1.3), 15.2),
        # R, SCORE2-OP, heartscore.org
        ("low", (75, 1, 0, 140, 5.5, 1.3), 13.3),
        ("low", (75, 0, 0, 110, 5, 2), 6.1),
        ("moderate", (75, 1, 1, 140, 5.5, 1.3), 23.9),
        ("moderate", (75, 0, 1, 140, 5.5, 1.3), 20.0),
        ("high", (75, 1, 1, 140, 6, 1.3), 29.2),
        ("high", (75, 0, 1, 110, 5, 2), 19.0),
        ("very_high", (75, 1, 1, 140, 6, 1.3), 40.8),
        ("very_high", (75, 0, 1, 140, 6, 1.3), 46.2),
    ],
)
def test_examples(region: str, who: tuple[float, ...], percent: float) -> None:
    assert round(100 * float(ten_year_risk(person(*who), region)[0]), 1) == percent  # type: ignore[arg-type]


def test_the_older_persons_example_to_two_decimals() -> None:
    both = [float(score2_op(person(75, male, 1, 140, 5.5, 1.3), "low")[0]) for male in (1.0, 0.0)]
    np.testing.assert_array_equal(np.round(100 * np.array(both), 2), [18.56, 15.16])


@pytest.mark.parametrize("age", [45.0, 62.0, 75.0, 84.0])
@pytest.mark.parametrize("male", [0.0, 1.0])
@pytest.mark.parametrize("region", ["low", "moderate", "high", "very_high"])
def test_each_risk_factor_pushes_the_way_it_should(age: float, male: float, region: str) -> None:
    def risk(**changes: float) -> float:
        base = {"age": age, "male": male, "smoker": 0.0, "systolic": 135.0, "total": 5.4, "hdl": 1.35}
        return float(ten_year_risk(person(**{**base, **changes}), region)[0])  # type: ignore[arg-type]

    assert risk(age=age + 3) > risk()
    assert risk(smoker=1.0) > risk()
    assert risk(systolic=155.0) > risk()
    assert risk(total=6.4) > risk()
    assert risk(hdl=1.7) < risk()
    assert (risk(diabetes=1.0) > risk()) == (age >= 70), "SCORE2 takes no diabetes"


def test_models_change_at_the_age_that_is_asked_for() -> None:
    young, old = person(69.9, 1, 1, 140, 5.5, 1.3), person(70, 1, 1, 140, 5.5, 1.3)
    assert ten_year_risk(young, "low") == score2(young, "low")
    assert ten_year_risk(old, "low") == score2_op(old, "low")
    assert ten_year_risk(old, "low", older_from_years=75.0) == score2(old, "low")
    assert score2(old, "low") != score2_op(old, "low")


def test_ages_beyond_the_validated_range_count_as_its_ends() -> None:
    who = (1, 0, 150, 6.0, 1.2)
    assert ten_year_risk(person(22, *who), "high") == ten_year_risk(person(40, *who), "high")
    assert ten_year_risk(person(97, *who), "high") == ten_year_risk(person(89, *who), "high")


@pytest.mark.parametrize("unknown", range(7))
@pytest.mark.parametrize("age", [55.0, 78.0])
def test_unknown_inputs_make_an_unknown_risk(age: float, unknown: int) -> None:
    values = [age, 1.0, 1.0, 140.0, 5.5, 1.3, 0.0]
    values[unknown] = np.nan
    diabetes_of_the_younger = unknown == 6 and age < 70
    assert np.isnan(ten_year_risk(person(*values), "low")[0]) == (not diabetes_of_the_younger)


def test_people_are_rows() -> None:
    columns = np.array([[50, 1, 1, 0, 140, 5.5, 1.3], [75, 0, 1, 0, 140, 5.5, 1.3], [60, np.nan, 0, 0, 120, 5, 1.3]]).T
    risk = ten_year_risk(RiskFactors(*columns), "low")
    np.testing.assert_array_equal(np.round(100 * risk, 1), [5.9, 15.2, np.nan])
