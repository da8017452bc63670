"""Shapes of ST segment, T and U wave: normal, secondary to conduction, ischaemic by territory, electrolytes.

Vectors are mV in Frank coordinates (x left, y feet, z back): an ST vector points to the injured wall, so that leads
over it show elevation and leads opposite show the reciprocal depression of themselves. All figures are ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ecgclip_jax.signal.synthesis.dipole import WIDTH_MS, XYZ, Components, wave

Vector = Float[np.ndarray, " 3"]

NORMAL_T = np.array([0.27, 0.20, -0.12])
_INJURY = {
    "anterior_stemi": (0.13, -0.12, -0.24),
    "inferior_stemi": (-0.08, 0.27, 0.06),
    "lateral_stemi": (0.27, -0.19, 0.10),
    "posterior_infarction": (0.03, 0.04, 0.22),
    "pericarditis": (0.13, 0.13, -0.05),
    "early_repolarisation": (0.07, 0.05, -0.11),
    "st_depression": (-0.16, -0.12, 0.08),
}
"""ST vector of medium size."""
_INVERSIONS = ((-0.26, -0.03, 0.10), (0.12, -0.26, -0.12), (0.08, 0.12, 0.27))
"""T vectors of inversion in lateral, inferior and anterior leads."""


def st_segment(vector: Vector, qrs_ms: float) -> Components:
    """A plateau from the J point into the T wave: overlapping Gaussians."""
    rows = [
        wave(0.66 * vector, qrs_ms * (1 - share) + 8, 6.0, centre_qt=0.62 * share, width_qt=0.065)
        for share in (0.12, 0.42, 0.72, 1.02)
    ]
    return np.stack(rows)


def t_wave(vector: Vector, *, narrow: float = 1.0) -> Components:
    """Slow rise, faster fall; ends with the QT interval. `narrow` < 1 makes it peaked and symmetrical."""
    rise = wave(0.55 * vector, 0.0, 0.0, centre_qt=0.745 if narrow == 1 else 0.79, width_qt=0.085 * narrow)
    fall = wave(0.60 * vector, 0.0, 0.0, centre_qt=0.815, width_qt=0.056 * narrow)
    return np.stack([rise, fall])


def u_wave(vector: Vector) -> Components:
    """After the end of T."""
    return wave(vector, 75.0, 30.0, centre_qt=1.0)[None]


def secondary(qrs: Components, qrs_ms: float, size: float) -> Components:
    """ST and T against the main direction of a broad QRS, as in bundle branch block, pacing and ectopy."""
    area = (qrs[:, WIDTH_MS, None] * qrs[:, XYZ]).sum(axis=0)
    against = -area / (np.linalg.norm(area) + 1e-9)
    return np.concatenate([st_segment(0.12 * size * against, qrs_ms), t_wave(0.42 * size * against)])


def primary(
    findings: frozenset[str], qrs_ms: float, normal_t: Vector, st_shift: float, rng: np.random.Generator
) -> Components:
    """ST, T and U of normally conducted beats. `st_shift` (mV) is a small depression that is no finding."""
    st = np.array([-0.7, -0.5, 0.4]) * st_shift
    t, narrow, u = normal_t.copy(), 1.0, 0.06 * normal_t
    extra: list[Components] = []
    size = float(rng.uniform(0.55, 1.5))
    for finding, vector in _INJURY.items():
        if finding in findings:
            st = st + size * np.array(vector)
    if not findings.isdisjoint(("anterior_stemi", "inferior_stemi", "lateral_stemi")):
        t = 0.35 * t + 0.95 * st
    if "posterior_infarction" in findings:
        t = 0.6 * t + np.array([0.02, 0.0, -0.26]) * size
    if "early_repolarisation" in findings:
        t = 1.5 * t + np.array([0.0, 0.0, -0.10])
        extra.append(wave(np.array([0.12, 0.09, -0.05]) * size, qrs_ms + 2, 7.0)[None])
    if "st_depression" in findings:
        t = 0.35 * t
    if "t_wave_inversion" in findings:
        t = np.array(_INVERSIONS[int(rng.integers(3))]) * size
    if "nonspecific_st_t_changes" in findings:
        t = t * rng.uniform(0.05, 0.28)
        st = st + np.array([-0.04, -0.03, 0.02])
    if "left_ventricular_hypertrophy" in findings:
        t = np.array([-0.22, -0.06, -0.26]) * size
        st = st + np.array([-0.09, -0.03, -0.06]) * size
    if "right_ventricular_hypertrophy" in findings:
        t = np.array([0.14, -0.02, 0.26]) * size
        st = st + np.array([0.02, -0.03, 0.07]) * size
    if "right_bundle_branch_block" in findings:
        t = t + np.array([0.10, 0.02, 0.24])
    if "old_anterior_infarction" in findings:
        t = t + np.array([-0.08, 0.0, 0.20]) * size
    if "old_inferior_infarction" in findings:
        t = t + np.array([0.02, -0.22, 0.0]) * size
    if "hyperkalaemia" in findings:
        t, narrow = t * (0.55 / np.linalg.norm(t)) * size * 1.3, 0.62
    if "hypokalaemia" in findings:
        t, u = 0.22 * t, np.array([0.12, 0.09, -0.15]) * size
        st = st + np.array([-0.07, -0.05, 0.03])
    return np.concatenate([st_segment(st, qrs_ms), t_wave(t, narrow=narrow), u_wave(u), *extra])
