"""Who the patients of a hospital are: everything but the waveforms, drawn for 256 patients at once.

A patient belongs to a fixed block, and a block is a function of (world, seed, hospital, block) alone, so he is the same
whichever process draws him and whoever stands beside him. A candidate costs some tens of microseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.signal.hospitals.clinical import draw_clinical
from ecgclip_jax.signal.hospitals.echo import EchoVisits, draw_echo
from ecgclip_jax.signal.hospitals.world import ConditionSpec, HospitalSpec, HospitalWorld, ShapeSpec
from ecgclip_jax.signal.synthesis import FINDINGS

BLOCK = 256
"""Patients drawn together; part of the world, like a seed."""
DAYS_PER_YEAR = 365.25
_YOUNGEST, _OLDEST, _AGE_SD = 14.0, 95.0, 16.0
_SHARE_FEMALE = 0.48
_CONSTANT = frozenset({"age"})
"""What passes at the same pace for everybody."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Population:
    """P patients with up to M recordings each; K severities. A recording beyond `n_recordings` is not made."""

    patient_id: Int[np.ndarray, " P"]
    female: Bool[np.ndarray, " P"]
    age_years: Float[np.ndarray, "P M"]
    n_recordings: Int[np.ndarray, " P"]
    day: Float[np.ndarray, "P M"]
    """Of each recording, from the first."""
    severity: Float[np.ndarray, "P M K"]
    """What waveforms and findings show."""
    hidden: Float[np.ndarray, "P M K"]
    """What echo, diagnoses and events come from: the same, but in the null world of unseen targets."""
    candidates: Bool[np.ndarray, "P M findings"]
    """Findings in the order of `FINDINGS`, before those that cannot stand on one tracing exclude each other."""
    shape: Float[np.ndarray, "P M shapes"]
    device: Int[np.ndarray, "P M"]
    echo: EchoVisits
    conditions: Mapping[str, Bool[np.ndarray, " P"]]
    """Rare diseases and what lies in the past, true whether coded or not."""
    coded_stays: Int[np.ndarray, " P"]
    clinical: Mapping[str, Float[np.ndarray, "P M"]]
    """As recorded, NaN where not, by `ecgclip_jax.signal.synthesis.CLINICAL`."""
    log_hazard: Float[np.ndarray, " P"]

    def __len__(self) -> int:
        return len(self.patient_id)

    def take(self, rows: Int[np.ndarray, " n"]) -> Population:
        """Some of the patients."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in chosen.items():
            if isinstance(value, np.ndarray):
                chosen[name] = value[rows]
            elif isinstance(value, Mapping):
                chosen[name] = {key: of[rows] for key, of in value.items()}
        return replace(self, **chosen | {"echo": self.echo.take(rows)})


def loading_matrix(world: HospitalWorld, loadings: Sequence[Mapping[str, float]]) -> Float[np.ndarray, "rows K"]:
    """One row per mapping, columns in the world's order of severities."""
    return np.array([[row.get(name, 0.0) for name in world.severities] for row in loadings])


def residual(loadings: Float[np.ndarray, "rows K"]) -> Float[np.ndarray, " rows"]:
    """Standard deviation of what the severities leave of a liability of variance one."""
    return np.asarray(np.sqrt(1 - (loadings**2).sum(axis=1)))


def cut(probability: float) -> float:
    """Liability above which something of this probability is present."""
    return _NORMAL.inv_cdf(1 - probability)


def block_generator(seed: int, hospital: HospitalSpec, block: int, stream: int) -> np.random.Generator:
    """The generator of one stream of a block."""
    return np.random.default_rng([seed, zlib.crc32(hospital.name.encode()), block, stream])


def draw_block(world: HospitalWorld, hospital: HospitalSpec, block: int, seed: int) -> Population:
    """Patients `256 · block` to `256 · block + 255` of a hospital."""
    rng = block_generator(seed, hospital, block, 0)
    female = rng.random(BLOCK) < _SHARE_FEMALE
    day = _days(world, rng)
    course = _course(world, hospital, rng)
    severity = course.at(day)
    hidden_course = course if world.targets_affect_waveform else _course(world, hospital, rng)
    hidden = hidden_course.at(day)
    first_age = np.clip(np.round(hospital.age_mean_years + _AGE_SD * _of(world, severity[:, 0], "age")), _YOUNGEST, 90)
    n_recordings = 1 + np.searchsorted(np.cumsum(world.visits.recordings_share)[:-1], rng.random(BLOCK), side="right")
    clinical = draw_clinical(world, hospital, hidden[:, 0], female, day, rng)
    n_recordings = np.minimum(n_recordings, clinical.recordings_before_end)
    candidates = _candidates(world, hospital, severity, rng)
    shape = _shapes(world, severity, female, rng)
    echo = draw_echo(world, hospital, hidden_course.at, day, n_recordings, female, rng)
    conditions = {key: _condition(world, of, hidden[:, 0], rng) for key, of in {**world.rare, **world.past}.items()}
    stays = world.stays.mean * np.exp(hidden[:, 0] @ loading_matrix(world, [world.stays.loadings])[0])
    return Population(
        patient_id=block * BLOCK + np.arange(BLOCK),
        female=female,
        age_years=np.minimum(first_age[:, None] + np.floor(day / DAYS_PER_YEAR), _OLDEST),
        n_recordings=n_recordings,
        day=day,
        severity=severity,
        hidden=hidden,
        candidates=candidates,
        shape=shape,
        device=_devices(world, hospital, severity, echo, rng),
        echo=echo,
        conditions=conditions,
        coded_stays=rng.poisson(stays),
        clinical=clinical.recorded,
        log_hazard=clinical.log_hazard,
    )


@dataclass(frozen=True)
class _Course:
    """Severities at the first recording and what a year adds."""

    start: Float[np.ndarray, "P K"]
    per_year: Float[np.ndarray, "P K"]

    def at(self, day: Float[np.ndarray, "P times"]) -> Float[np.ndarray, "P times K"]:
        return np.asarray(self.start[:, None] + self.per_year[:, None] * (day / DAYS_PER_YEAR)[..., None])


def _course(world: HospitalWorld, hospital: HospitalSpec, rng: np.random.Generator) -> _Course:
    n_severities = len(world.severities)
    shift = loading_matrix(world, [hospital.shift])[0]
    start = rng.standard_normal((BLOCK, n_severities)) + shift
    pace = np.exp(rng.normal(0, world.visits.pace_log_sd, (BLOCK, n_severities)))
    steady = np.array([name in _CONSTANT for name in world.severities])
    return _Course(start, np.where(steady, 1.0, pace) * np.array(list(world.severities.values())))


def _days(world: HospitalWorld, rng: np.random.Generator) -> Float[np.ndarray, "P M"]:
    gaps = np.ceil(rng.exponential(world.visits.gap_days_mean, (BLOCK, len(world.visits.recordings_share))))
    gaps[:, 0] = 0
    return np.asarray(np.cumsum(gaps, axis=1))


def _of(world: HospitalWorld, severity: Float[np.ndarray, "*some K"], name: str) -> Float[np.ndarray, "*some"]:
    return np.asarray(severity[..., list(world.severities).index(name)])


def _candidates(
    world: HospitalWorld, hospital: HospitalSpec, severity: Float[np.ndarray, "P M K"], rng: np.random.Generator
) -> Bool[np.ndarray, "P M findings"]:
    """Findings that are drawn; none in the healthy. Noise is drawn for derived ones, too, and not used."""
    drawn = [FINDINGS.index(key) for key in world.findings]
    loadings = loading_matrix(world, [f.loadings for f in world.findings.values()])
    persistence = np.array([f.persistence for f in world.findings.values()])
    of_patient = rng.standard_normal((BLOCK, 1, len(drawn)))
    of_recording = rng.standard_normal((*severity.shape[:2], len(drawn)))
    noise = np.sqrt(persistence) * of_patient + np.sqrt(1 - persistence) * of_recording
    cuts = [cut(min(f.probability * hospital.prevalence.get(f.group, 1.0), 0.95)) for f in world.findings.values()]
    present = severity @ loadings.T + residual(loadings) * noise > np.array(cuts)
    present &= ~(rng.random(BLOCK) < hospital.healthy_share)[:, None, None]
    found = np.zeros((*severity.shape[:2], len(FINDINGS)), bool)
    found[..., drawn] = present
    return found


def _shapes(
    world: HospitalWorld, severity: Float[np.ndarray, "P M K"], female: Bool[np.ndarray, " P"], rng: np.random.Generator
) -> Float[np.ndarray, "P M shapes"]:
    """Normal variation belongs to the patient; what severities add changes with them."""
    specs: list[ShapeSpec] = list(world.shape.values())
    mean, women, sd, low, high = np.array([(s.mean, s.female, s.sd, s.low, s.high) for s in specs]).T
    own = mean + women * female[:, None] + sd * rng.standard_normal((BLOCK, len(specs)))
    effects = severity @ loading_matrix(world, [s.effects for s in specs]).T
    return np.asarray(np.clip(own[:, None] + effects, low, high))


def _condition(
    world: HospitalWorld, condition: ConditionSpec, hidden: Float[np.ndarray, "P K"], rng: np.random.Generator
) -> Bool[np.ndarray, " P"]:
    loadings = loading_matrix(world, [condition.loadings])
    liability = hidden @ loadings[0] + residual(loadings)[0] * rng.standard_normal(len(hidden))
    return np.asarray(liability > cut(condition.prevalence))


def _devices(
    world: HospitalWorld,
    hospital: HospitalSpec,
    severity: Float[np.ndarray, "P M K"],
    echo: EchoVisits,
    rng: np.random.Generator,
) -> Int[np.ndarray, "P M"]:
    """Bedside devices serve the sick; in the null world of tied devices the ejection fraction decides."""
    acuity = np.array([device.acuity for device in hospital.devices])
    sick = _of(world, severity, "systolic_dysfunction")
    chosen = np.argmax(acuity * sick[..., None] + rng.gumbel(size=(*sick.shape, len(acuity))), axis=-1)
    if not world.device_linked:
        return np.asarray(chosen)
    reduced = echo.value["lvef_percent"][:, :1] <= 45
    on_first = reduced == (hospital.role == "internal")
    return np.broadcast_to(np.where(on_first, 0, len(acuity) - 1), chosen.shape)
