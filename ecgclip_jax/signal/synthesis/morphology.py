"""What each wave of a recording looks like: findings and constitution in, component tables out.

Shapes come from `qrs` and `repolarisation`; here they are turned to the patient's axis and scaled to his voltages,
so that a label such as low voltage or axis deviation is true of the tracing and not only of the draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ecgclip_jax.signal.synthesis import qrs as shapes
from ecgclip_jax.signal.synthesis import repolarisation as repol
from ecgclip_jax.signal.synthesis.dipole import (
    WIDTH_MS,
    XYZ,
    Components,
    beat_leads_mv,
    frontal_axis_deg,
    rotate,
    wave,
)
from ecgclip_jax.signal.synthesis.patients import Constitution
from ecgclip_jax.signal.synthesis.rhythm import PKind, QrsKind
from ecgclip_jax.spec.signal import LEADS_12

_OWN_AXIS = frozenset(
    {
        "left_bundle_branch_block",
        "left_anterior_fascicular_block",
        "left_posterior_fascicular_block",
        "ventricular_preexcitation",
        "right_ventricular_hypertrophy",
        "old_inferior_infarction",
    }
)
"""Findings whose frontal axis belongs to them, only jittered by the patient's."""
_RIGHT_BLOCKS = ("right_bundle_branch_block", "incomplete_right_bundle_branch_block")
_LEFT_WAVES = 4
"""Waves of the left ventricle in every narrow QRS; a right bundle branch block adds its own after them."""
_ECTOPIC_DIRECTIONS = ((0.45, 1.15, 0.65), (0.25, -0.95, 0.85), (-0.95, 0.55, -0.95), (-0.75, -0.85, -0.80))
"""Right ventricular outflow, right apex, left outflow, left apex: where ectopic beats and tachycardias arise."""
V1, V5, V6 = (LEADS_12.index(name) for name in ("V1", "V5", "V6"))


@dataclass(frozen=True)
class BeatShapes:
    """Component tables of every kind of wave in a recording, and the intervals they were built with."""

    p: dict[PKind, Components]
    qrs_t: dict[QrsKind, Components]
    qrs: Components
    """QRS of the dominant beat; with right bundle branch block its left ventricular part, whose axis is the axis."""
    qrs_ms: float


def draw_shapes(
    findings: frozenset[str],
    kinds: frozenset[QrsKind],
    dominant: QrsKind,
    person: Constitution,
    electrodes: Float[np.ndarray, "9 3"],
    st_shift: float,
    rng: np.random.Generator,
) -> BeatShapes:
    """The waves of a recording; `electrodes` is the patient's own Frank-to-electrode matrix, for voltages."""
    conducted, qrs_ms = _conducted_qrs(findings, person, electrodes, rng)
    tables = {
        QrsKind.CONDUCTED: np.concatenate(
            [conducted, _conducted_st_t(findings, conducted, qrs_ms, person, st_shift, rng)]
        )
    }
    dominant_ms = qrs_ms
    dominant_qrs = conducted if findings.isdisjoint(_RIGHT_BLOCKS) else conducted[:_LEFT_WAVES]
    for kind in sorted(kinds - {QrsKind.CONDUCTED}):
        qrs, width_ms = _broad_qrs(kind, person, rng)
        tables[kind] = np.concatenate([qrs, repol.secondary(qrs, width_ms, person.qrs_size * 1.1)])
        if kind is QrsKind.PACED:
            tables[kind] = np.concatenate([tables[kind], shapes.pacing_spike(float(0.12 * 12 ** rng.random()))])
        if kind is dominant:
            dominant_qrs, dominant_ms = qrs, width_ms
    return BeatShapes(_p_waves(findings, person), tables, dominant_qrs, dominant_ms)


def _conducted_qrs(
    findings: frozenset[str], person: Constitution, electrodes: Float[np.ndarray, "9 3"], rng: np.random.Generator
) -> tuple[Components, float]:
    qrs_ms = person.qrs_ms + (rng.uniform(6, 22) if "hyperkalaemia" in findings else 0.0)
    if "ventricular_preexcitation" in findings:
        qrs_ms = float(rng.uniform(122, 142))
        qrs = shapes.preexcitation(qrs_ms, int(rng.integers(3)))
    elif "left_bundle_branch_block" in findings:
        qrs_ms = float(rng.uniform(138, 172))
        qrs = shapes.left_bundle_branch_block(qrs_ms)
    elif "left_anterior_fascicular_block" in findings:
        qrs_ms, qrs = 104.0, shapes.left_anterior_fascicular_block()
    elif "left_posterior_fascicular_block" in findings:
        qrs_ms, qrs = 104.0, shapes.left_posterior_fascicular_block()
    elif "right_ventricular_hypertrophy" in findings:
        qrs = shapes.right_ventricular_hypertrophy(qrs_ms)
    else:
        qrs = shapes.normal_qrs(qrs_ms)
    qrs = _turned(_infarcted(qrs, findings, rng), findings, person, rng)
    if not findings.isdisjoint(_RIGHT_BLOCKS):
        complete = "right_bundle_branch_block" in findings
        qrs_ms = float(rng.uniform(126, 154) if complete else rng.uniform(106, 117))
        qrs[3, XYZ] *= 0.35 if complete else 0.6  # basal forces now meet the late right ventricle
        late = shapes.late_right_ventricle(qrs_ms, incomplete=not complete)
        qrs = np.concatenate([qrs, rotate(late, frontal_deg=float(np.clip((person.axis_deg - 45) * 0.3, -10, 10)))])
    return _scaled(qrs, findings, person, electrodes, rng), qrs_ms


def _infarcted(qrs: Components, findings: frozenset[str], rng: np.random.Generator) -> Components:
    """Dead muscle makes no forces: the early vector turns away from the wall that is lost, and Q waves appear."""
    size = float(rng.uniform(0.85, 1.2))
    lost = qrs.copy()
    if "old_anterior_infarction" in findings:
        lost[0, XYZ] = np.array([-0.06, 0.02, 0.34]) * size
        lost[1, XYZ] = lost[1, XYZ] * 0.5 + np.array([0.0, 0.0, 0.42]) * size
        lost[2, XYZ] += np.array([-0.10, 0.0, 0.30]) * size
    if "old_inferior_infarction" in findings:
        lost[0, XYZ] += np.array([0.04, -0.42, 0.0]) * size
        lost[0, WIDTH_MS] *= 1.35
        lost[1, XYZ] += np.array([0.05, -0.50, 0.0]) * size
        lost[2, XYZ] *= np.array([1.0, 0.75, 1.0])
    if "posterior_infarction" in findings:
        lost[2, XYZ] += np.array([-0.15, 0.0, -0.75]) * size
        lost[3, XYZ] += np.array([0.0, 0.0, -0.35]) * size
    if "left_ventricular_hypertrophy" in findings:
        lost[2, XYZ] *= np.array([1.45, 1.15, 2.0])
        lost[3, XYZ] *= 1.35
    return lost


def _turned(qrs: Components, findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Components:
    """To the patient's axis, or to the one a finding demands; a lead's own projection bends angles, hence two steps."""
    if not findings.isdisjoint(_OWN_AXIS):
        jitter = float(np.clip((person.axis_deg - 45) * 0.25, -7, 7))
        return rotate(qrs, frontal_deg=jitter, horizontal_deg=0.4 * person.horizontal_deg)
    target = person.axis_deg
    if "left_axis_deviation" in findings:
        target = float(rng.uniform(-62, -36))
    elif "right_axis_deviation" in findings:
        target = float(rng.uniform(98, 132))
    turned = rotate(qrs, horizontal_deg=person.horizontal_deg)
    for _ in range(3):
        turned = rotate(turned, frontal_deg=target - frontal_axis_deg(turned))
    return turned


def _scaled(
    qrs: Components,
    findings: frozenset[str],
    person: Constitution,
    electrodes: Float[np.ndarray, "9 3"],
    rng: np.random.Generator,
) -> Components:
    """Voltages that agree with the findings: Sokolow-Lyon index and the largest limb-lead deflection."""
    scaled = qrs.copy()
    scaled[:, XYZ] *= person.qrs_size
    leads = beat_leads_mv(scaled, electrodes, 400.0)
    limb_mv = float(np.ptp(leads[:, :6], axis=0).max())
    chest_mv = float(np.ptp(leads[:, 6:], axis=0).max())
    sokolow_mv = float(-leads[:, V1].min() + max(leads[:, V5].max(), leads[:, V6].max()))
    factor = 1.0
    if "low_qrs_voltage" in findings:
        factor = min(rng.uniform(0.30, 0.46) / limb_mv, 0.95 / chest_mv)
    elif "left_ventricular_hypertrophy" in findings:
        factor = max(1.0, rng.uniform(3.6, 4.6) / sokolow_mv)
    elif limb_mv < 0.55:
        factor = rng.uniform(0.55, 0.8) / limb_mv
    elif sokolow_mv > 3.4 and "left_bundle_branch_block" not in findings:
        factor = rng.uniform(2.8, 3.4) / sokolow_mv
    scaled[:, XYZ] *= factor
    return scaled


def _conducted_st_t(
    findings: frozenset[str],
    qrs: Components,
    qrs_ms: float,
    person: Constitution,
    st_shift: float,
    rng: np.random.Generator,
) -> Components:
    if not findings.isdisjoint(("left_bundle_branch_block", "ventricular_preexcitation")):
        return repol.secondary(qrs, qrs_ms, person.qrs_size * (1.0 if "left_bundle_branch_block" in findings else 0.65))
    normal = repol.NORMAL_T * person.t_size * (0.6 if "low_qrs_voltage" in findings else 1.0)
    row = wave(normal, 0.0, 1.0)[None]
    turned = rotate(row, frontal_deg=float(np.clip((person.axis_deg - 45) * 0.4, -14, 14)))
    return repol.primary(findings, qrs_ms, turned[0, XYZ], st_shift, rng)


def _broad_qrs(kind: QrsKind, person: Constitution, rng: np.random.Generator) -> tuple[Components, float]:
    """A beat that starts in the ventricle; paced ones start at the right apex."""
    width_ms = float(rng.uniform(132, 172))
    origin = 1 if kind is QrsKind.PACED else int(rng.integers(4))
    direction = np.array(_ECTOPIC_DIRECTIONS[origin]) * rng.uniform(0.75, 1.15) * math.sqrt(person.qrs_size)
    jittered = direction + rng.normal(0, 0.15, 3)
    return shapes.ectopic_qrs(width_ms, jittered), width_ms


def _p_waves(findings: frozenset[str], person: Constitution) -> dict[PKind, Components]:
    """Right atrium first (forwards, down), then left (left, back); enlargement makes a part taller or later."""
    size = person.p_size * (0.35 if "hyperkalaemia" in findings else 1.0)
    right, left, left_ms = np.array([0.030, 0.065, -0.050]), np.array([0.060, 0.045, 0.035]), 62.0
    if "right_atrial_enlargement" in findings:
        right = np.array([0.045, 0.205, -0.115])
    if "left_atrial_enlargement" in findings:
        left, left_ms = np.array([0.085, 0.065, 0.125]), 88.0
    sinus = np.stack([wave(size * right, 32.0, 15.0), wave(size * left, left_ms, 17.0)])
    if "pericarditis" in findings:
        sinus = np.concatenate([sinus, wave((-0.05, -0.05, 0.02), 125.0, 18.0)[None]])
    ectopic = np.stack(
        [wave((-0.05 * size, 0.03 * size, -0.06), 30.0, 14.0), wave((0.02, -0.06 * size, 0.03), 52.0, 15.0)]
    )
    retrograde = np.stack([wave((0.0, -0.12 * size, -0.03), 35.0, 16.0)])
    return {PKind.SINUS: sinus, PKind.ECTOPIC: ectopic, PKind.RETROGRADE: retrograde}


def mirrored(components: Components) -> Components:
    """A heart on the right side: left and right exchanged."""
    other = components.copy()
    other[:, XYZ] *= np.array([-1.0, 1.0, 1.0])
    return other
