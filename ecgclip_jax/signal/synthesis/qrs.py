"""Shapes of the QRS complex: depolarisation as a short sequence of dipole directions, one function per conduction.

Amplitudes are mV in Frank coordinates (x left, y feet, z back), times milliseconds from QRS onset; all figures are
ours, chosen so that the projected leads show the textbook pattern named in each docstring.
"""

from __future__ import annotations

import numpy as np

from ecgclip_jax.signal.synthesis.dipole import Components, wave


def normal_qrs(qrs_ms: float) -> Components:
    """Septum, apex, free wall, base: small r in V1 growing to V5, S shrinking from V2, small q in V6."""
    d = qrs_ms
    return np.stack(
        [
            wave((-0.12, 0.02, -0.25), 0.20 * d, 0.075 * d),
            wave((0.45, 0.35, -0.30), 0.36 * d, 0.090 * d),
            wave((1.00, 0.75, 0.25), 0.50 * d, 0.115 * d),
            wave((-0.15, -0.12, 0.65), 0.74 * d, 0.095 * d),
        ]
    )


def late_right_ventricle(qrs_ms: float, incomplete: bool) -> Components:
    """What right bundle branch block adds after the left ventricle: R' in V1, S in I and V6."""
    if incomplete:
        return wave((-0.30, -0.08, -0.38), 0.84 * qrs_ms, 9.0)[None]
    return np.stack([wave((-0.45, 0.0, -0.50), 0.70 * qrs_ms, 16.0), wave((-0.40, -0.05, -0.45), 0.85 * qrs_ms, 14.0)])


def left_bundle_branch_block(qrs_ms: float) -> Components:
    """Slow spread to the left and back: QS or rS in V1-V3, broad notched R without q in I, aVL, V5, V6."""
    d = qrs_ms
    return np.stack(
        [
            wave((0.25, 0.10, 0.02), 0.16 * d, 0.075 * d),
            wave((0.85, 0.35, 0.75), 0.36 * d, 0.110 * d),
            wave((0.55, 0.05, 0.70), 0.54 * d, 0.090 * d),
            wave((0.90, 0.00, 0.70), 0.72 * d, 0.100 * d),
        ]
    )


def left_anterior_fascicular_block() -> Components:
    """First down and right, then up and left: qR in I and aVL, rS in II, III and aVF."""
    return np.stack(
        [
            wave((-0.14, 0.32, -0.20), 19.0, 8.0),
            wave((0.50, -0.20, -0.20), 38.0, 9.0),
            wave((0.85, -0.95, 0.30), 55.0, 13.0),
            wave((-0.10, -0.25, 0.55), 80.0, 11.0),
        ]
    )


def left_posterior_fascicular_block() -> Components:
    """First up and left, then down and right: rS in I and aVL, qR in III and aVF."""
    return np.stack(
        [
            wave((0.28, -0.30, -0.20), 19.0, 8.0),
            wave((0.55, 0.45, -0.25), 36.0, 9.0),
            wave((-0.25, 1.25, 0.30), 56.0, 13.0),
            wave((-0.45, 0.30, 0.45), 80.0, 11.0),
        ]
    )


def preexcitation(qrs_ms: float, pathway: int) -> Components:
    """A slurred delta wave before the normal spread; the pathway inserts 0 left lateral, 1 right, 2 posteroseptal."""
    delta = ((-0.22, 0.25, -0.42), (0.40, -0.08, 0.15), (0.32, -0.42, -0.22))[pathway]
    bias = ((-0.35, 0.10, -0.75), (0.20, -0.35, 0.30), (0.15, -0.80, -0.30))[pathway]
    normal = normal_qrs(86.0)
    normal[0, 4:7] = 0.0
    normal[2:, 4:7] += np.array(bias) * 0.6
    normal[:, 0] += qrs_ms - 104.0
    slur = [wave(delta, 24.0, 11.0), wave(np.array(delta) * 1.35, 46.0, 16.0)]
    return np.concatenate([np.stack(slur), normal])


def right_ventricular_hypertrophy(qrs_ms: float) -> Components:
    """Forces turn to the right and forwards: dominant R in V1, deep S in V5 and V6, right axis."""
    d = qrs_ms
    return np.stack(
        [
            wave((-0.05, 0.10, -0.30), 0.20 * d, 0.080 * d),
            wave((0.45, 0.45, -0.45), 0.38 * d, 0.095 * d),
            wave((-0.20, 0.65, -0.55), 0.55 * d, 0.110 * d),
            wave((-0.75, 0.15, 0.05), 0.76 * d, 0.105 * d),
        ]
    )


def ectopic_qrs(qrs_ms: float, direction: np.ndarray) -> Components:
    """Spread through muscle from one place: broad, slurred, all in about one direction."""
    d = qrs_ms
    x, y, z = direction
    side = np.array([0.9 * y - 0.3 * z, 0.2 * z - 0.9 * x, 0.3 * x - 0.2 * y])  # perpendicular: bends the loop open
    return np.stack(
        [
            wave(0.55 * direction + 0.25 * side, 0.26 * d, 0.105 * d),
            wave(1.00 * direction, 0.46 * d, 0.115 * d),
            wave(0.60 * direction - 0.30 * side, 0.70 * d, 0.110 * d),
        ]
    )


def pacing_spike(size_mv: float) -> Components:
    """The stimulus: two milliseconds wide, upwards and to the left, before the captured QRS."""
    return wave((0.5 * size_mv, -0.9 * size_mv, 0.2 * size_mv), -3.0, 1.3)[None]
