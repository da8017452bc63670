"""From the heart's potentials to stored integers: breathing, muscle, mains, cables, the device and its step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int16

from ecgclip_jax.signal.synthesis.dipole import ELECTRODES, ELECTRODES_TO_LEADS
from ecgclip_jax.signal.synthesis.world import Device, Hospital
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV, STORED_RATE_HZ, STORED_SAMPLES

_TIME_S = np.arange(STORED_SAMPLES, dtype=np.float32) / STORED_RATE_HZ
_TO_LEADS = ELECTRODES_TO_LEADS.astype(np.float32)
_LIMB = 3
"""The first three electrodes are on the limbs."""


@dataclass(frozen=True)
class Defects:
    """What is wrong with the cables; leads by name."""

    arms_swapped: bool
    flat: tuple[str, ...]
    missing: tuple[str, ...]


def draw_defects(hospital: Hospital, arms_swapped: bool, rng: np.random.Generator) -> Defects:
    """One chest electrode may be off: its lead is flat, or the device writes none."""
    flat: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    chance, lead = rng.random(), ELECTRODES[_LIMB + int(rng.integers(6))]
    if chance < hospital.flat_lead_probability:
        flat = (lead,)
    elif chance < hospital.flat_lead_probability + hospital.missing_lead_probability:
        missing = (lead,)
    return Defects(arms_swapped, flat, missing)


def record(
    electrodes_mv: Float32[np.ndarray, "9 time"],
    hospital: Hospital,
    device: Device,
    defects: Defects,
    breaths_hz: float,
    rng: np.random.Generator,
) -> Int16[np.ndarray, "time 12"]:
    """What the device stores of clean electrode potentials, in microvolts, -32768 where it stores nothing."""
    potentials = electrodes_mv * np.float32(1000 * (1 + device.gain_error * rng.standard_normal()))
    potentials += _interference_uv(hospital, breaths_hz, rng)
    potentials += _muscle_uv(device.noise_uv, rng)
    if rng.random() < hospital.motion_probability:
        _add_motion(potentials, rng)
    if defects.arms_swapped:
        potentials[:2] = potentials[1::-1]
    return _stored(_low_passed(potentials, device.low_pass_hz), device, defects)


def _stored(
    potentials_uv: Float32[np.ndarray, "9 time"], device: Device, defects: Defects
) -> Int16[np.ndarray, "time 12"]:
    leads = _TO_LEADS @ potentials_uv
    leads -= leads.mean(axis=1, keepdims=True)  # an amplifier with a high pass passes no steady potential
    step = np.float32(device.resolution_uv)
    leads /= step
    np.rint(leads, out=leads)
    leads *= step
    np.rint(leads, out=leads)
    np.clip(leads, MISSING_UV + 1, -MISSING_UV - 1, out=leads)
    stored = np.ascontiguousarray(leads.astype(np.int16).T)
    for lead in defects.flat:
        stored[:, LEADS_12.index(lead)] = 0
    for lead in defects.missing:
        stored[:, LEADS_12.index(lead)] = MISSING_UV
    return stored


def _interference_uv(hospital: Hospital, breaths_hz: float, rng: np.random.Generator) -> Float32[np.ndarray, "9 time"]:
    """Breathing, drift of each electrode's contact, and mains: sines mixed into the electrodes.

    The size of each varies far more between recordings than within one, as it does in a hospital.
    """
    wander_hz = (breaths_hz, rng.uniform(0.04, 0.12), rng.uniform(0.12, 0.2), rng.uniform(0.3, 0.45))
    wander_uv = hospital.wander_uv * np.exp(rng.normal(-0.2, 0.65)) * np.array([0.8, 1.0, 0.6, 0.03])
    mains_hz = hospital.mains_hz + rng.normal(0, 0.02)
    mains_uv = hospital.mains_uv * np.exp(rng.normal(-0.5, 0.7)) * np.array([1.0, 0.15])
    frequencies = np.array([*wander_hz, mains_hz, 3 * mains_hz])
    amplitude = np.tile(np.concatenate([wander_uv, mains_uv]), 2)
    weights = (rng.standard_normal((9, len(amplitude))) * amplitude).astype(np.float32)
    phase = (2 * np.pi * frequencies).astype(np.float32)[:, None] * _TIME_S
    return np.asarray(weights @ np.concatenate([np.sin(phase), np.cos(phase)]), np.float32)


def _muscle_uv(size_uv: float, rng: np.random.Generator) -> Float32[np.ndarray, "9 time"]:
    """Broad-band noise, with a recording's own size per electrode."""
    sizes = size_uv * np.exp(rng.normal(0, 0.35) + rng.normal(0, 0.25, len(ELECTRODES)))
    noise = rng.standard_normal((len(ELECTRODES), STORED_SAMPLES), dtype=np.float32)
    noise *= sizes.astype(np.float32)[:, None]
    return noise


def _add_motion(potentials_uv: Float32[np.ndarray, "9 time"], rng: np.random.Generator) -> None:
    """One to three slow bumps of one electrode, as when a patient moves."""
    for _ in range(1 + int(rng.integers(3))):
        electrode = int(rng.integers(len(ELECTRODES)))
        centre_s, width_s = rng.uniform(0.3, 9.7), rng.uniform(0.12, 0.5)
        bump = np.exp(-0.5 * ((_TIME_S - np.float32(centre_s)) / np.float32(width_s)) ** 2)
        potentials_uv[electrode] += np.float32(rng.normal(0, 650)) * bump


_HALF_TAPS = 5
"""numpy convolves kernels of up to eleven taps much faster than longer ones."""


@lru_cache(maxsize=16)
def _kernel(low_pass_hz: float) -> Float32[np.ndarray, " taps"]:
    """Windowed-sinc low pass of unit gain at zero."""
    n = np.arange(-_HALF_TAPS, _HALF_TAPS + 1)
    taps = np.sinc(2 * low_pass_hz / STORED_RATE_HZ * n) * np.hamming(len(n))
    return np.asarray(taps / taps.sum(), np.float32)


def _low_passed(potentials_uv: Float32[np.ndarray, "9 time"], low_pass_hz: float) -> Float32[np.ndarray, "9 time"]:
    """All electrodes in one convolution: each carries its own padding, so none leaks into the next."""
    padded = np.pad(potentials_uv, ((0, 0), (_HALF_TAPS, _HALF_TAPS)), mode="edge")
    filtered = np.convolve(padded.ravel(), _kernel(low_pass_hz), mode="same").reshape(padded.shape)
    return filtered[:, _HALF_TAPS:-_HALF_TAPS]
