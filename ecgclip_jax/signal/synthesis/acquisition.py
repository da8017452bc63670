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
_TO_LEADS = ELECTRODES_TO_LEADS.T.astype(np.float32)
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
    electrodes_mv: Float32[np.ndarray, "time 9"],
    hospital: Hospital,
    device: Device,
    defects: Defects,
    breaths_hz: float,
    rng: np.random.Generator,
) -> Int16[np.ndarray, "time 12"]:
    """What the device stores of clean electrode potentials, in microvolts, -32768 where it stores nothing."""
    potentials = electrodes_mv * np.float32(1000 * (1 + device.gain_error * rng.standard_normal()))
    potentials += _wander_uv(hospital.wander_uv, breaths_hz, rng)
    potentials += _mains_uv(hospital, rng)
    potentials += _muscle_uv(device.noise_uv, rng)
    if rng.random() < hospital.motion_probability:
        _add_motion(potentials, rng)
    if defects.arms_swapped:
        potentials[:, :2] = potentials[:, 1::-1]
    return _stored(_low_passed(potentials, device.low_pass_hz), device, defects)


def lead_signal_mv(electrodes_mv: Float32[np.ndarray, "time 9"]) -> Float32[np.ndarray, "time 12"]:
    """Twelve leads before noise and quantisation."""
    return electrodes_mv @ _TO_LEADS


def _stored(
    potentials_uv: Float32[np.ndarray, "time 9"], device: Device, defects: Defects
) -> Int16[np.ndarray, "time 12"]:
    leads = potentials_uv @ _TO_LEADS
    leads -= leads.mean(axis=0)  # an amplifier with a high pass passes no steady potential
    step = np.float32(device.resolution_uv)
    stored = np.clip(np.rint(np.rint(leads / step) * step), MISSING_UV + 1, -MISSING_UV - 1).astype(np.int16)
    for lead in defects.flat:
        stored[:, LEADS_12.index(lead)] = 0
    for lead in defects.missing:
        stored[:, LEADS_12.index(lead)] = MISSING_UV
    return stored


def _waves(frequencies_hz: np.ndarray, weights: np.ndarray) -> Float32[np.ndarray, "time 9"]:
    """Sines and cosines of a few frequencies mixed into the electrodes by `weights` [2·frequencies, 9]."""
    phase = np.float32(2 * np.pi) * _TIME_S[:, None] * frequencies_hz.astype(np.float32)
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1) @ weights.astype(np.float32)


def _wander_uv(size_uv: float, breaths_hz: float, rng: np.random.Generator) -> Float32[np.ndarray, "time 9"]:
    """Breathing and slow drift of each electrode's contact; its size varies much more between than within recordings."""
    frequencies = np.array([breaths_hz, rng.uniform(0.04, 0.12), rng.uniform(0.12, 0.2), rng.uniform(0.3, 0.45)])
    amplitude = size_uv * np.exp(rng.normal(-0.2, 0.7)) * np.array([0.8, 1.0, 0.6, 0.2])
    weights = rng.standard_normal((8, 9)) * np.tile(amplitude, 2)[:, None]
    return _waves(frequencies, weights)


def _mains_uv(hospital: Hospital, rng: np.random.Generator) -> Float32[np.ndarray, "time 9"]:
    """The mains and its third harmonic, picked up differently by each cable."""
    base = hospital.mains_hz + rng.normal(0, 0.02)
    amplitude = hospital.mains_uv * np.exp(rng.normal(-0.5, 0.8)) * np.array([1.0, 0.15])
    return _waves(base * np.array([1.0, 3.0]), rng.standard_normal((4, 9)) * np.tile(amplitude, 2)[:, None])


def _muscle_uv(size_uv: float, rng: np.random.Generator) -> Float32[np.ndarray, "time 9"]:
    """Broad-band noise, with a recording's own size per electrode."""
    sizes = (size_uv * np.exp(rng.normal(0, 0.35) + rng.normal(0, 0.25, len(ELECTRODES)))).astype(np.float32)
    noise = rng.standard_normal((STORED_SAMPLES, len(ELECTRODES)), dtype=np.float32)
    noise *= sizes
    return noise


def _add_motion(potentials_uv: Float32[np.ndarray, "time 9"], rng: np.random.Generator) -> None:
    """One to three slow bumps of one electrode, as when a patient moves."""
    for _ in range(1 + int(rng.integers(3))):
        electrode = int(rng.integers(len(ELECTRODES)))
        centre_s, width_s = rng.uniform(0.3, 9.7), rng.uniform(0.12, 0.5)
        bump = np.exp(-0.5 * ((_TIME_S - np.float32(centre_s)) / np.float32(width_s)) ** 2)
        potentials_uv[:, electrode] += np.float32(rng.normal(0, 450)) * bump


@lru_cache(maxsize=16)
def _kernel(low_pass_hz: float) -> Float32[np.ndarray, " taps"]:
    """Windowed-sinc low pass of unit gain at zero."""
    n = np.arange(-10, 11)
    taps = np.sinc(2 * low_pass_hz / STORED_RATE_HZ * n) * np.hamming(len(n))
    return (taps / taps.sum()).astype(np.float32)


def _low_passed(potentials_uv: Float32[np.ndarray, "time 9"], low_pass_hz: float) -> Float32[np.ndarray, "time 9"]:
    kernel = _kernel(low_pass_hz)
    half = len(kernel) // 2
    padded = np.pad(potentials_uv, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(channel, kernel, mode="valid") for channel in padded.T], axis=1)
