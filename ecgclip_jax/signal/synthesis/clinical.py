"""What a hospital's records say of a synthetic patient beside the ECG: risk factors, with gaps, and follow-up.

They come from the same hidden severities as findings, targets and waveform, so an ECG tells a part of them, and from a
generator stream of their own, so nothing else of the world depends on them. They never enter a report. In the null
world `unseen_targets` they come from severities that no waveform shows, as the targets do; age and sex stay true.

All figures are ours: ranges are those of adults in a hospital, effects are large enough to be learned from a
demonstration's few thousand ECGs, and nothing here describes a real population.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ecgclip_jax.signal.synthesis.findings import SEVERITIES, TARGETS
from ecgclip_jax.signal.synthesis.patients import Patient, Sex, keyed_generator
from ecgclip_jax.signal.synthesis.world import Hospital, WorldSpec

CLINICAL_STREAM = 2_000_000
CLINICAL = (
    "smoker",
    "diabetes",
    "systolic_mmhg",
    "total_cholesterol_mmol_l",
    "hdl_cholesterol_mmol_l",
    "height_cm",
    "weight_kg",
    "follow_up_years",
    "event_observed",
)
"""Names of what is recorded; NaN where it is not."""

_MISSING_TOGETHER: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (("smoker",), -0.5, "ischaemic_burden"),
    (("diabetes",), -0.5, "metabolic_load"),
    (("systolic_mmhg",), -0.3, "pressure_overload"),
    (("total_cholesterol_mmol_l", "hdl_cholesterol_mmol_l"), -0.6, "metabolic_load"),
    (("height_cm", "weight_kg"), 0.4, "age"),
)
"""What is measured together is missing together. A severity shifts the log-odds: doctors measure where they suspect
something, and the old are seldom put on scales. So nothing is missing at random."""

_LOG_HAZARD = {
    "age": 0.50,
    "ischaemic_burden": 0.50,
    "systolic_dysfunction": 0.45,
    "pressure_overload": 0.30,
    "atrial_remodelling": 0.25,
    "metabolic_load": 0.20,
}
_LOG_HAZARD_MALE, _LOG_HAZARD_SMOKER, _LOG_HAZARD_DIABETES = 0.35, 0.30, 0.30
_MEDIAN_EVENTS_PER_YEAR = 0.05
_SHORTEST_YEARS, _LONGEST_YEARS = 0.5, 10.0


@dataclass(frozen=True)
class ClinicalFacts:
    """`recorded` by `CLINICAL`, NaN where unknown; `log_hazard` is the best possible score of the event."""

    recorded: dict[str, float]
    log_hazard: float


def draw_clinical(world: WorldSpec, hospital: Hospital, patient: Patient, seed: int) -> ClinicalFacts:
    """The clinical facts of a patient: a function of (world, seed, hospital, patient id) alone.

    All his recordings count as one visit: they share risk factors and the day from which he is followed.
    """
    rng = keyed_generator(seed, hospital, patient.patient_id, CLINICAL_STREAM)
    hidden = dict(zip(SEVERITIES, patient.hidden.tolist(), strict=True))
    sex: Sex = patient.sex if world.targets_affect_waveform else ("female", "male")[int(rng.integers(2))]
    has = dict(zip(TARGETS, patient.targets.tolist(), strict=True))
    facts = _risk_factors(hidden, sex, has, rng)
    log_hazard = _log_hazard(hidden, sex, has)
    facts |= _follow_up(log_hazard, rng)
    for name in _missing(hospital, hidden, rng):
        facts[name] = math.nan
    return ClinicalFacts(facts, log_hazard)


def _risk_factors(
    hidden: dict[str, float], sex: Sex, has: dict[str, bool], rng: np.random.Generator
) -> dict[str, float]:
    """Smoking and diabetes are the patient's targets of that name; the rest are numbers as a chart has them."""
    male, metabolic, ischaemic = sex == "male", hidden["metabolic_load"], hidden["ischaemic_burden"]
    systolic = 124 + 5 * hidden["age"] + 6 * hidden["pressure_overload"] + 14 * has["hypertension"] + rng.normal(0, 11)
    total = 5.1 + 0.35 * metabolic + 0.25 * ischaemic + rng.normal(0, 0.85)
    hdl = (1.28 if male else 1.55) - 0.14 * metabolic - 0.10 * has["smoking"] + rng.normal(0, 0.28)
    height = (177 if male else 164) - 1.5 * hidden["age"] + rng.normal(0, 6.5)
    body_mass = math.exp(math.log(26.5) + 0.07 * metabolic + 0.06 * has["diabetes"] + rng.normal(0, 0.13))
    return {
        "smoker": float(has["smoking"]),
        "diabetes": float(has["diabetes"]),
        "systolic_mmhg": _within(systolic, 85.0, 220.0, 0),
        "total_cholesterol_mmol_l": _within(total, 2.5, 10.0, 1),
        "hdl_cholesterol_mmol_l": _within(hdl, 0.5, 3.2, 2),
        "height_cm": _within(height, 140.0, 205.0, 0),
        "weight_kg": _within(min(body_mass, 50) * (height / 100) ** 2, 38.0, 190.0, 0),
    }


def _within(value: float, least: float, most: float, decimals: int) -> float:
    return round(min(max(value, least), most), decimals)


def _log_hazard(hidden: dict[str, float], sex: Sex, has: dict[str, bool]) -> float:
    """Of a cardiovascular event, relative to a typical woman who neither smokes nor has diabetes."""
    effects = sum(weight * hidden[name] for name, weight in _LOG_HAZARD.items())
    effects += _LOG_HAZARD_MALE * (sex == "male") + _LOG_HAZARD_SMOKER * has["smoking"]
    return effects + _LOG_HAZARD_DIABETES * has["diabetes"]


def _follow_up(log_hazard: float, rng: np.random.Generator) -> dict[str, float]:
    """Time under observation, and whether an event ended it: constant hazard, and a study that closes on one day."""
    event_years = rng.exponential() / (_MEDIAN_EVENTS_PER_YEAR * math.exp(log_hazard))
    closed_years = rng.uniform(_SHORTEST_YEARS, _LONGEST_YEARS)
    return {
        "follow_up_years": round(min(event_years, closed_years), 4),
        "event_observed": float(event_years <= closed_years),
    }


def _missing(hospital: Hospital, hidden: dict[str, float], rng: np.random.Generator) -> list[str]:
    """Names of what the hospital did not record of this patient; follow-up is missing at random."""
    base = hospital.clinical_missing
    names: list[str] = []
    for together, shift, severity in _MISSING_TOGETHER:
        odds = base / (1 - base) * math.exp(shift * hidden[severity])
        if rng.random() < odds / (1 + odds):
            names += together
    if rng.random() < base:
        names += ["follow_up_years", "event_observed"]
    return names
