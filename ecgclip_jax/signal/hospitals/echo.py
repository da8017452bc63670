"""Echocardiography of synthetic patients: who is examined, when, and what is measured.

Values exist for every patient at two days; whether an examination took place is another matter, and it depends on how
sick he is, so that labels are not missing at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.signal.hospitals.world import EchoSpec, HospitalSpec, HospitalWorld

EXAMINATIONS = 2
"""At most; the second belongs to the last recording."""


@dataclass(frozen=True)
class EchoVisits:
    """Two examinations of P patients; `done` says which took place, `stated` which of their numbers were kept."""

    day: Float[np.ndarray, "P visits"]
    done: Bool[np.ndarray, "P visits"]
    value: Mapping[str, Float[np.ndarray, "P visits"]]
    stated: Mapping[str, Bool[np.ndarray, "P visits"]]

    def take(self, rows: Int[np.ndarray, " n"]) -> EchoVisits:
        """Some of the patients."""
        values, stated = ({key: of[rows] for key, of in field.items()} for field in (self.value, self.stated))
        return EchoVisits(self.day[rows], self.done[rows], values, stated)


def draw_echo(
    world: HospitalWorld,
    hospital: HospitalSpec,
    hidden_at: Callable[[Float[np.ndarray, "P times"]], Float[np.ndarray, "P times K"]],
    day: Float[np.ndarray, "P M"],
    n_recordings: Int[np.ndarray, " P"],
    female: Bool[np.ndarray, " P"],
    rng: np.random.Generator,
) -> EchoVisits:
    """Examinations near a random recording and near the last."""
    n_patients, visit = len(day), world.echo_visit
    near = np.stack([rng.integers(0, n_recordings), n_recordings - 1], axis=1)
    gap = np.ceil(rng.exponential(visit.gap_days_mean, (n_patients, EXAMINATIONS))) - 1
    side = np.where(rng.random((n_patients, EXAMINATIONS)) < visit.before_share, -1.0, 1.0)
    echo_day = np.take_along_axis(day, near, axis=1) + side * gap
    hidden = hidden_at(echo_day)
    sick = hidden[:, 0] @ np.array([visit.loadings.get(name, 0.0) for name in world.severities])
    chance = 1 / (1 + np.exp(-(visit.log_odds + hospital.echo_log_odds + sick)))
    done = rng.random(n_patients) < chance
    again = done & (rng.random(n_patients) < visit.second_share)
    families = sorted({spec.family for spec in world.echo.values()})
    shared = dict(zip(families, rng.standard_normal((len(families), n_patients)), strict=True))
    own = dict(zip(world.echo, rng.standard_normal((len(world.echo), n_patients)), strict=True))
    values, stated = {}, {}
    for key, spec in world.echo.items():
        loadings = np.array([spec.loadings.get(name, 0.0) for name in world.severities])
        noise = np.sqrt(visit.family_noise) * shared[spec.family] + np.sqrt(1 - visit.family_noise) * own[key]
        liability = hidden @ loadings + np.sqrt(1 - (loadings**2).sum()) * noise[:, None]
        values[key] = measured(spec, liability, female[:, None])
        stated[key] = rng.random((n_patients, EXAMINATIONS)) >= spec.missing
    return EchoVisits(echo_day, np.stack([done, again], axis=1), values, stated)


def measured(
    spec: EchoSpec, liability: Float[np.ndarray, "P visits"], female: Bool[np.ndarray, "P 1"]
) -> Float[np.ndarray, "P visits"]:
    """What an echo of this liability states, rounded as a report rounds it."""
    if spec.scale == "steps":
        return spec.first + np.searchsorted(np.array(spec.steps), liability).astype(float)
    value = spec.mean + spec.female * female + spec.sd * liability
    value = np.exp(value) if spec.scale == "log" else value
    return np.asarray(np.round(np.clip(value, spec.low, spec.high), spec.decimals))


def nearest_examination(
    visits: EchoVisits, day: Float[np.ndarray, "P M"]
) -> tuple[Int[np.ndarray, "P M"], Float[np.ndarray, "P M"]]:
    """For each recording the examination nearest in time, and echo minus ECG in days; NaN where none took place."""
    gap = np.where(visits.done[:, None], visits.day[:, None] - day[..., None], np.inf)
    which = np.abs(gap).argmin(axis=-1)
    days = np.take_along_axis(gap, which[..., None], axis=-1)[..., 0]
    return which, np.where(np.isfinite(days), days, np.nan)
