"""The heart as one moving dipole: components of a beat → trajectory → nine electrode potentials → twelve leads.

Leads are differences of electrode potentials, so Einthoven's and Goldberger's relations hold before quantisation
whatever happens to the electrodes: noise, wander, or two cables swapped.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32

from ecgclip_jax.spec.signal import LEADS_12, STORED_RATE_HZ, STORED_SAMPLES

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
FRANK_TO_LEADS_8 = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)
"""Dower's transform (Dower et al. 1980): Frank axes x left, y towards the feet, z towards the back → I, II, V1-V6."""


def _electrodes_to_leads() -> Float[np.ndarray, "12 9"]:
    """Einthoven's, Goldberger's and Wilson's definitions."""
    ra, la, ll, *chest = np.eye(9)
    wilson = (ra + la + ll) / 3
    limb = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]
    return np.stack([*limb, *(v - wilson for v in chest)])


def _frank_to_electrodes() -> Float[np.ndarray, "9 3"]:
    """Potentials against Wilson's central terminal, which is zero when RA + LA + LL = 0."""
    lead_i, lead_ii, *chest = FRANK_TO_LEADS_8
    ra = -(lead_i + lead_ii) / 3
    return np.stack([ra, ra + lead_i, ra + lead_ii, *chest])


ELECTRODES_TO_LEADS = _electrodes_to_leads()
FRANK_TO_ELECTRODES = _frank_to_electrodes()
FRANK_TO_LEADS_12 = ELECTRODES_TO_LEADS @ FRANK_TO_ELECTRODES
_AXIS_LEADS = [LEADS_12.index("I"), LEADS_12.index("aVF")]

# Columns of a component table: centre and width of a Gaussian, each as milliseconds plus a share of the QT interval.
CENTRE_MS, CENTRE_QT, WIDTH_MS, WIDTH_QT = range(4)
XYZ = slice(4, 7)
"""Amplitudes in mV along x, y, z."""

Components = Float[np.ndarray, "_ 7"]


def wave(
    xyz_mv: tuple[float, float, float] | Float[np.ndarray, " 3"],
    centre_ms: float,
    width_ms: float,
    *,
    centre_qt: float = 0.0,
    width_qt: float = 0.0,
) -> Float[np.ndarray, " 7"]:
    """One Gaussian of the dipole: amplitude exp(-(t - centre)² / 2 width²) along a fixed direction."""
    return np.array([centre_ms, centre_qt, width_ms, width_qt, *xyz_mv])


def frontal_axis_deg(qrs: Components, frank_to_leads: Float[np.ndarray, "12 3"] = FRANK_TO_LEADS_12) -> float:
    """Frontal QRS axis from the net areas in I and aVF, in (-180, 180]."""
    area = (qrs[:, WIDTH_MS, None] * qrs[:, XYZ]).sum(axis=0)
    lead_i, lead_avf = frank_to_leads[_AXIS_LEADS] @ area
    return math.degrees(math.atan2(2 * lead_avf, math.sqrt(3) * lead_i))


def rotate(components: Components, *, frontal_deg: float = 0.0, horizontal_deg: float = 0.0) -> Components:
    """Turns the directions: from the left towards the feet by `frontal_deg`, then from the left to the back."""
    turned = components.copy()
    x, y, z = components[:, XYZ].T
    c, s = math.cos(math.radians(frontal_deg)), math.sin(math.radians(frontal_deg))
    x, y = c * x - s * y, s * x + c * y
    c, s = math.cos(math.radians(horizontal_deg)), math.sin(math.radians(horizontal_deg))
    turned[:, XYZ] = np.stack([c * x - s * z, y, s * x + c * z], axis=1)
    return turned


def beat_leads_mv(
    components: Components, electrodes: Float[np.ndarray, "9 3"], qt_ms: float
) -> Float[np.ndarray, "t 12"]:
    """One beat alone in twelve leads at 500 Hz from 60 ms before its onset, for measuring voltages."""
    t_ms = np.arange(-60.0, 260.0, 2.0)
    gauss = _gaussians(t_ms[None, :], components[None], np.array([qt_ms]))[0]
    return np.asarray(gauss.T @ components[:, XYZ] @ (ELECTRODES_TO_LEADS @ electrodes).T)


def render_events(
    dipole_mv: Float32[np.ndarray, "3 time"],
    onset_s: Float[np.ndarray, " event"],
    components: Float[np.ndarray, "event component 7"],
    qt_ms: Float[np.ndarray, " event"],
) -> None:
    """Adds events (P waves or QRS-T complexes) to a dipole trajectory, in place.

    Every event is evaluated only in the window its components reach, 3.5 widths to each side.
    """
    if len(onset_s) == 0:
        return
    centre = components[..., CENTRE_MS] + components[..., CENTRE_QT] * qt_ms[:, None]
    width = components[..., WIDTH_MS] + components[..., WIDTH_QT] * qt_ms[:, None]
    before_ms = -float((centre - 3.5 * width).min())
    length = math.ceil((float((centre + 3.5 * width).max()) + before_ms) * STORED_RATE_HZ / 1000) + 1
    first = np.floor((onset_s * 1000 - before_ms) * STORED_RATE_HZ / 1000).astype(int)
    t_ms = (first[:, None] + np.arange(length)) * (1000 / STORED_RATE_HZ) - onset_s[:, None] * 1000
    gauss = _gaussians(t_ms, components, qt_ms)
    waves = np.matmul(components[..., XYZ].astype(np.float32).transpose(0, 2, 1), gauss)
    for start, event in zip(first.tolist(), waves, strict=True):
        lo, hi = max(start, 0), min(start + length, STORED_SAMPLES)
        if lo < hi:
            dipole_mv[:, lo:hi] += event[:, lo - start : hi - start]


def _gaussians(
    t_ms: Float[np.ndarray, "event t"],
    components: Float[np.ndarray, "event component 7"],
    qt_ms: Float[np.ndarray, " event"],
) -> Float32[np.ndarray, "event component t"]:
    centre = (components[..., CENTRE_MS] + components[..., CENTRE_QT] * qt_ms[:, None]).astype(np.float32)
    width = (components[..., WIDTH_MS] + components[..., WIDTH_QT] * qt_ms[:, None]).astype(np.float32)
    scaled = (t_ms.astype(np.float32)[:, None, :] - centre[..., None]) / width[..., None]
    return np.asarray(np.exp(-0.5 * scaled * scaled), np.float32)
