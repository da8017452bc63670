"""A patient of the synthetic world: who he is, what he has, and what stays the same in all his recordings.

Everything is drawn from a generator keyed by (seed, hospital, patient, stream), so a patient is the same whichever
process makes him and whatever stands beside him in a chunk.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ecgclip_jax.signal.synthesis.compatibility import compatible
from ecgclip_jax.signal.synthesis.findings import FINDING_TABLE, FINDINGS, SEVERITIES, TARGET_TABLE
from ecgclip_jax.signal.synthesis.world import Hospital, WorldSpec

Sex = Literal["female", "male"]
PATIENT_STREAM = 0
ECG_STREAM = 1_000
STRANGER_STREAM = 1_000_000

_NORMAL = NormalDist()


def keyed_generator(seed: int, hospital: Hospital, patient_id: int, stream: int) -> np.random.Generator:
    """The generator of one stream of one patient: a pure function of its four arguments."""
    return np.random.default_rng([seed, zlib.crc32(hospital.name.encode()), patient_id, stream])


def _loading_matrix(loadings: list[dict[str, float]]) -> np.ndarray:
    return np.array([[row.get(name, 0.0) for name in SEVERITIES] for row in loadings])


_FINDING_LOADINGS = _loading_matrix([dict(f.loadings) for f in FINDING_TABLE])
_FINDING_RESIDUAL = np.sqrt(1 - (_FINDING_LOADINGS**2).sum(axis=1))
_PERSISTENCE = np.array([f.persistence or 0.0 for f in FINDING_TABLE])
_TARGET_LOADINGS = _loading_matrix([dict(t.loadings) for t in TARGET_TABLE])
_TARGET_RESIDUAL = np.sqrt(1 - (_TARGET_LOADINGS**2).sum(axis=1))
_TARGET_THRESHOLD = np.array([_NORMAL.inv_cdf(1 - t.prevalence) for t in TARGET_TABLE])


@dataclass(frozen=True)
class Constitution:
    """What shapes a patient's normal ECG and does not change between recordings."""

    qrs_size: float
    """Factor on QRS amplitudes."""
    t_size: float
    axis_deg: float
    """Frontal QRS axis of normal conduction."""
    horizontal_deg: float
    """Rotation of the heart about its long axis: moves the R/S transition between V leads."""
    precordial_gain: Float[np.ndarray, " six"]
    """Factor per V lead: chest wall and exact electrode place."""
    p_size: float
    pr_ms: float
    qrs_ms: float
    qtc_ms: float
    heart_rate_bpm: float
    breaths_hz: float


TYPICAL_CONSTITUTION = Constitution(
    qrs_size=1.0,
    t_size=1.0,
    axis_deg=50.0,
    horizontal_deg=0.0,
    precordial_gain=np.ones(6),
    p_size=1.1,
    pr_ms=158.0,
    qrs_ms=90.0,
    qtc_ms=408.0,
    heart_rate_bpm=72.0,
    breaths_hz=0.22,
)
"""A textbook adult, for pictures."""


@dataclass(frozen=True)
class Patient:
    """One patient; `oracle` is the best possible score of each target given all hidden severities."""

    patient_id: int
    sex: Sex
    age_years: float
    severity: Float[np.ndarray, " severities"]
    hidden: Float[np.ndarray, " severities"]
    """The severities that targets and clinical facts come from: `severity`, but in the null world of unseen targets."""
    finding_noise: Float[np.ndarray, " findings"]
    healthy: bool
    constitution: Constitution
    targets: Bool[np.ndarray, " targets"]
    oracle: Float[np.ndarray, " targets"]
    ecg_count: int


def draw_patient(world: WorldSpec, hospital: Hospital, patient_id: int, seed: int) -> Patient:
    """The patient `patient_id` of `hospital`."""
    rng = keyed_generator(seed, hospital, patient_id, PATIENT_STREAM)
    severity = rng.standard_normal(len(SEVERITIES))
    hidden = severity if world.targets_affect_waveform else rng.standard_normal(len(SEVERITIES))
    oracle = _TARGET_LOADINGS @ hidden
    liability = oracle + _TARGET_RESIDUAL * rng.standard_normal(len(TARGET_TABLE))
    sex: Sex = "female" if rng.random() < 0.48 else "male"
    return Patient(
        patient_id=patient_id,
        sex=sex,
        age_years=float(np.clip(round(hospital.age_mean_years + 16 * severity[SEVERITIES.index("age")]), 18, 95)),
        severity=severity,
        hidden=hidden,
        finding_noise=rng.standard_normal(len(FINDINGS)),
        healthy=bool(rng.random() < hospital.healthy_share),
        constitution=_draw_constitution(rng, sex, dict(zip(SEVERITIES, severity * world.severity_effect, strict=True))),
        targets=liability > _TARGET_THRESHOLD,
        oracle=oracle,
        ecg_count=1 + int(rng.integers(world.ecgs_per_patient_max)),
    )


def _draw_constitution(rng: np.random.Generator, sex: Sex, severity: dict[str, float]) -> Constitution:
    """Normal variation of an adult ECG plus the partial effect of the severities on it."""
    female = sex == "female"
    pressure, right, infiltration = (severity[k] for k in ("pressure_overload", "right_overload", "infiltration"))
    qrs_log_size = rng.normal(-0.10 if female else 0.0, 0.28) + 0.12 * pressure - 0.14 * infiltration
    t_log_size = rng.normal(-0.1 if female else 0.0, 0.25)
    t_log_size -= 0.14 * severity["systolic_dysfunction"] + 0.12 * severity["ischaemic_burden"]
    axis = rng.normal(45.0, 22.0) - 6 * severity["age"] + 9 * right - 6 * pressure
    return Constitution(
        qrs_size=math.exp(qrs_log_size),
        t_size=math.exp(t_log_size),
        axis_deg=float(np.clip(axis, -22, 84)),
        horizontal_deg=rng.normal(0.0, 11.0) - 4 * pressure + 4 * right,
        precordial_gain=np.exp(rng.normal(0.0, 0.12, 6)),
        p_size=math.exp(rng.normal(0.0, 0.18) + 0.12 * severity["atrial_remodelling"]),
        pr_ms=float(np.clip(rng.normal(156, 14) + 5 * severity["age"] + 8 * infiltration, 124, 194)),
        qrs_ms=float(np.clip(rng.normal(90, 5) + 4 * severity["systolic_dysfunction"], 76, 108)),
        qtc_ms=float(np.clip(rng.normal(414 if female else 404, 11) + 7 * severity["metabolic_load"], 375, 444)),
        heart_rate_bpm=float(np.clip(rng.normal(73, 8) + 4 * severity["metabolic_load"], 61, 98)),
        breaths_hz=float(rng.uniform(0.18, 0.33)),
    )


def _thresholds(hospital: Hospital) -> Float[np.ndarray, " findings"]:
    """Liability above which each finding is drawn; infinite for findings derived from the tracing."""
    drawn = [
        0.0 if f.persistence is None else min(f.probability * hospital.prevalence.get(f.group, 1.0), 0.95)
        for f in FINDING_TABLE
    ]
    return np.array([_NORMAL.inv_cdf(1 - p) if p > 0 else np.inf for p in drawn])


def draw_findings(patient: Patient, hospital: Hospital, rng: np.random.Generator) -> frozenset[str]:
    """The drawn findings of one recording, compatible with each other; those derived from the tracing come later."""
    own = np.sqrt(_PERSISTENCE) * patient.finding_noise + np.sqrt(1 - _PERSISTENCE) * rng.standard_normal(len(FINDINGS))
    if patient.healthy:
        return frozenset()
    liability = _FINDING_LOADINGS @ patient.severity + _FINDING_RESIDUAL * own
    present = np.flatnonzero(liability > _thresholds(hospital))
    return compatible(FINDINGS[i] for i in present)
