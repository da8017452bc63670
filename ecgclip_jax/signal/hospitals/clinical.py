"""Risk factors, with gaps, and follow-up of synthetic patients; they come from hidden severities and enter no report.

Ranges are those of adults in a hospital and ours; effects are large enough to be learned from some thousand ECGs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.signal.hospitals.world import HospitalSpec, HospitalWorld

_DAYS_PER_YEAR = 365.25
_NORMAL = NormalDist()
_MISSING_TOGETHER: tuple[tuple[tuple[str, ...], float, str], ...] = (
    (("smoker",), -0.5, "ischaemic_burden"),
    (("diabetes",), -0.5, "metabolic_load"),
    (("systolic_mmhg",), -0.3, "pressure_overload"),
    (("total_cholesterol_mmol_l", "hdl_cholesterol_mmol_l"), -0.6, "metabolic_load"),
    (("height_cm", "weight_kg"), 0.4, "age"),
)
"""What is measured together is missing together, and a severity shifts the log-odds: nothing is missing at random."""


@dataclass(frozen=True)
class Clinical:
    """Of P patients; times count from each recording on."""

    recorded: Mapping[str, Float[np.ndarray, "P M"]]
    recordings_before_end: Int[np.ndarray, " P"]
    """How many recordings lie before the event or the study's end: at least the first."""
    log_hazard: Float[np.ndarray, " P"]


def draw_clinical(
    world: HospitalWorld,
    hospital: HospitalSpec,
    hidden: Float[np.ndarray, "P K"],
    female: Bool[np.ndarray, " P"],
    day: Float[np.ndarray, "P M"],
    rng: np.random.Generator,
) -> Clinical:
    """Facts at the first recording, which all recordings share, and the time under observation from each on."""
    severity = dict(zip(world.severities, hidden.T, strict=True))
    has = {key: _has(world, key, hidden, rng) for key in world.risk}
    facts = _risk_factors(severity, female, has, rng)
    spec = world.survival
    log_hazard = sum(weight * severity[name] for name, weight in spec.loadings.items())
    log_hazard = log_hazard + spec.male * ~female + spec.smoker * has["smoker"] + spec.diabetes * has["diabetes"]
    event_years = rng.exponential(size=len(hidden)) / (spec.events_per_year * np.exp(log_hazard))
    closed_years = rng.uniform(*spec.closes_years, len(hidden))
    end_years = np.maximum(np.minimum(event_years, closed_years), 1 / _DAYS_PER_YEAR)
    years = day / _DAYS_PER_YEAR
    columns = {name: np.repeat(values[:, None], day.shape[1], axis=1) for name, values in facts.items()}
    columns["follow_up_years"] = np.round(np.maximum(end_years[:, None] - years, 0), 4)
    columns["event_observed"] = np.repeat((event_years <= closed_years)[:, None], day.shape[1], axis=1).astype(float)
    for name, gone in _missing(hospital, severity, rng).items():
        columns[name] = np.where(gone[:, None], np.nan, columns[name])
    before_end = np.maximum((years < end_years[:, None]).sum(axis=1), 1)
    return Clinical(columns, before_end, np.asarray(log_hazard))


def _has(
    world: HospitalWorld, key: str, hidden: Float[np.ndarray, "P K"], rng: np.random.Generator
) -> Bool[np.ndarray, " P"]:
    spec = world.risk[key]
    loadings = np.array([spec.loadings.get(name, 0.0) for name in world.severities])
    noise = rng.standard_normal(len(hidden)) * np.sqrt(1 - (loadings**2).sum())
    return np.asarray(hidden @ loadings + noise > _NORMAL.inv_cdf(1 - spec.prevalence))


def _risk_factors(
    severity: Mapping[str, Float[np.ndarray, " P"]],
    female: Bool[np.ndarray, " P"],
    has: Mapping[str, Bool[np.ndarray, " P"]],
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, " P"]]:
    """Numbers as a chart has them."""
    n, metabolic = len(female), severity["metabolic_load"]
    systolic = 124 + 5 * severity["age"] + 6 * severity["pressure_overload"] + 14 * has["hypertension"]
    total = 5.1 + 0.35 * metabolic + 0.25 * severity["ischaemic_burden"]
    hdl = np.where(female, 1.55, 1.28) - 0.14 * metabolic - 0.10 * has["smoker"]
    height = np.where(female, 164, 177) - 1.5 * severity["age"] + rng.normal(0, 6.5, n)
    body_mass = np.exp(np.log(26.5) + 0.07 * metabolic + 0.06 * has["diabetes"] + rng.normal(0, 0.13, n))
    return {
        "smoker": has["smoker"].astype(float),
        "diabetes": has["diabetes"].astype(float),
        "systolic_mmhg": np.round(np.clip(systolic + rng.normal(0, 11, n), 85, 220)),
        "total_cholesterol_mmol_l": np.round(np.clip(total + rng.normal(0, 0.85, n), 2.5, 10), 1),
        "hdl_cholesterol_mmol_l": np.round(np.clip(hdl + rng.normal(0, 0.28, n), 0.5, 3.2), 2),
        "height_cm": np.round(np.clip(height, 140, 205)),
        "weight_kg": np.round(np.clip(np.minimum(body_mass, 50) * (height / 100) ** 2, 38, 190)),
    }


def _missing(
    hospital: HospitalSpec, severity: Mapping[str, Float[np.ndarray, " P"]], rng: np.random.Generator
) -> dict[str, Bool[np.ndarray, " P"]]:
    """What the hospital did not record of whom; follow-up is missing at random."""
    base = hospital.clinical_missing
    gone: dict[str, Bool[np.ndarray, " P"]] = {}
    for together, shift, name in _MISSING_TOGETHER:
        odds = base / (1 - base) * np.exp(shift * severity[name])
        gone |= dict.fromkeys(together, rng.random(len(odds)) < odds / (1 + odds))
    return gone | dict.fromkeys(("follow_up_years", "event_observed"), rng.random(len(severity["age"])) < base)
