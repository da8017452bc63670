"""Which patients of a hospital enter a cohort: the first so many, or cases more often than others, with weights.

A case-enriched sample has enough positives of rare tasks in few ECGs. Each patient's chance is known, its inverse is
his sampling weight (Horvitz and Thompson 1952), and weighted sums over the sample estimate those of all candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.signal.hospitals.population import BLOCK, Population, block_generator, draw_block
from ecgclip_jax.signal.hospitals.world import EchoSpec, HospitalSpec, HospitalWorld
from ecgclip_jax.signal.synthesis import FINDINGS

_SELECTION_STREAM = 1
_REFERENCE_BLOCKS = 40
"""Patients of the internal hospital on whom the commonness of each condition is counted: 10,240."""


@dataclass(frozen=True)
class Sample:
    """Patients chosen of one hospital."""

    patient_id: Int[np.ndarray, " n"]
    n_recordings: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    """How many patients of the source each stands for; 1 without enrichment."""
    candidates: int
    """Patients of the source from whom they were chosen."""

    def take(self, rows: Int[np.ndarray, " rows"]) -> Sample:
        """Some of the chosen patients."""
        return replace(self, **{f: getattr(self, f)[rows] for f in ("patient_id", "n_recordings", "weight")})


def sample_patients(world: HospitalWorld, hospital: HospitalSpec, n_ecgs: int, seed: int, *, enriched: bool) -> Sample:
    """Patients, in the order of their numbers, with about `n_ecgs` recordings together.

    A larger sample holds every patient of a smaller one. Candidates are drawn in blocks until the expected number of
    recordings is reached; the expectation, not the outcome, decides, so the weights stay unbiased.
    """
    shares = condition_shares(world) if enriched else None
    ids, counts, weights = [], [], []
    expected, block = 0.0, 0
    while expected < n_ecgs:
        patients = draw_block(world, hospital, block, seed)
        chance = np.ones(BLOCK) if shares is None else inclusion_chance(world, patients, shares)
        wanted = block_generator(seed, hospital, block, _SELECTION_STREAM).random(BLOCK)
        if expected + float((chance * patients.n_recordings).sum()) > n_ecgs:
            patients, chance, wanted = _first(patients, chance, wanted, n_ecgs - expected)
        chosen = wanted < chance
        expected += float((chance * patients.n_recordings).sum())
        ids.append(patients.patient_id[chosen])
        counts.append(patients.n_recordings[chosen])
        weights.append(1 / chance[chosen])
        block += 1
        if len(patients) < BLOCK:
            break
    n_candidates = (block - 1) * BLOCK + len(patients)
    return Sample(np.concatenate(ids), np.concatenate(counts), np.concatenate(weights), n_candidates)


def _first(
    patients: Population, chance: Float[np.ndarray, " P"], wanted: Float[np.ndarray, " P"], n_ecgs: float
) -> tuple[Population, Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """As many of a block as bring the expected number of recordings up to `n_ecgs`."""
    expected = np.cumsum(chance * patients.n_recordings)
    rows = np.arange(int(np.searchsorted(expected, n_ecgs)) + 1)
    return patients.take(rows), chance[rows], wanted[rows]


def inclusion_chance(
    world: HospitalWorld, patients: Population, shares: Mapping[str, float]
) -> Float[np.ndarray, " P"]:
    """Chance of each patient by the rarest condition he has, in any recording or at any examination."""
    boost = np.ones(len(patients))
    for key, has in conditions(world, patients).items():
        boost = np.maximum(boost, np.where(has, world.enrichment.wanted_share / max(shares[key], 1e-6), 1.0))
    return np.asarray(np.minimum(1.0, world.enrichment.least * boost))


def conditions(world: HospitalWorld, patients: Population) -> dict[str, Bool[np.ndarray, " P"]]:
    """What a case may be: drawn findings, rare diseases, and each echo measurement far out, at three degrees."""
    made = np.arange(patients.candidates.shape[1]) < patients.n_recordings[:, None]
    seen = np.any(patients.candidates & made[..., None], axis=1)
    found = {FINDINGS[k]: seen[:, k] for k in range(len(FINDINGS)) if FINDINGS[k] in world.findings}
    found |= {f"diagnosis_{key}": np.asarray(patients.conditions[key]) for key in world.rare}
    for key, spec in world.echo.items():
        for degree, limit in enumerate(_limits(spec)):
            value: Float[np.ndarray, "P visits"] = patients.echo.value[key] * np.sign(spec.sd)
            found[f"{key}_{degree}"] = (value >= limit * np.sign(spec.sd)).any(axis=1)
    return found


_DEGREES = (1.2, 1.6, 2.0)


def _limits(spec: EchoSpec) -> list[float]:
    """Values from which an echo is far out: every step above the first, or 1.2, 1.6 and 2 SD."""
    if spec.scale == "steps":
        return [float(spec.first + k) for k in range(1, len(spec.steps) + 1)]
    raw = [spec.mean + spec.female / 2 + spec.sd * degree for degree in _DEGREES]
    return [float(np.exp(v)) for v in raw] if spec.scale == "log" else raw


def condition_shares(world: HospitalWorld) -> Mapping[str, float]:
    """Share of patients with each condition, counted once on the internal hospital with the world's own seed."""
    return _shares(world.model_dump_json())


@lru_cache(maxsize=4)
def _shares(world_json: str) -> Mapping[str, float]:
    world = HospitalWorld.model_validate_json(world_json)
    counts: dict[str, int] = {}
    for block in range(_REFERENCE_BLOCKS):
        for key, has in conditions(world, draw_block(world, world.hospitals[0], block, world.seed)).items():
            counts[key] = counts.get(key, 0) + int(has.sum())
    return {key: count / (_REFERENCE_BLOCKS * BLOCK) for key, count in counts.items()}
