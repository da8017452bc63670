"""One recording of one patient: rhythm, shapes and intervals become electrode potentials and true labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from ecgclip_jax.signal.synthesis.compatibility import RHYTHMS, SINUS_RATES
from ecgclip_jax.signal.synthesis.dipole import (
    ELECTRODES_TO_LEADS,
    FRANK_TO_ELECTRODES,
    XYZ,
    Components,
    frontal_axis_deg,
    render_events,
)
from ecgclip_jax.signal.synthesis.findings import SEVERITIES
from ecgclip_jax.signal.synthesis.morphology import BeatShapes, draw_shapes, mirrored
from ecgclip_jax.signal.synthesis.patients import Patient
from ecgclip_jax.signal.synthesis.rhythm import QrsKind, Rhythm, draw_rhythm
from ecgclip_jax.signal.synthesis.world import WorldSpec
from ecgclip_jax.spec.signal import STORED_RATE_HZ, STORED_SAMPLES

MEASUREMENTS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_deg")
"""What a reader or a machine would measure; NaN where there is nothing to measure. QTc is Fridericia's."""
_TIME_S = np.arange(STORED_SAMPLES) / STORED_RATE_HZ
_ARMS_SWAPPED = np.eye(9)[[1, 0, *range(2, 9)]]
_AXIS_HIDDEN = frozenset({"paced_rhythm", "ventricular_tachycardia"})


@dataclass(frozen=True)
class Recording:
    """Clean potentials of ten seconds and what is true of them."""

    findings: frozenset[str]
    measurements: dict[str, float]
    electrodes_mv: Float32[np.ndarray, "9 time"]


def make_recording(
    world: WorldSpec, patient: Patient, drawn: frozenset[str], rng: np.random.Generator, *, render: bool = True
) -> Recording:
    """The recording of a patient with the drawn findings; `render=False` leaves the potentials empty."""
    person = patient.constitution
    rhythm = draw_rhythm(drawn, person, rng)
    electrodes = FRANK_TO_ELECTRODES.copy()
    electrodes[3:] *= person.precordial_gain[:, None]
    dominant = QrsKind(int(np.bincount(rhythm.qrs_kind, minlength=len(QrsKind)).argmax()))
    severity = dict(zip(SEVERITIES, patient.severity * world.severity_effect, strict=True))
    st_shift = 0.02 * max(0.0, severity["ischaemic_burden"])
    shapes = draw_shapes(
        drawn, frozenset(map(QrsKind, rhythm.qrs_kind.tolist())), dominant, person, electrodes, st_shift, rng
    )
    measurements = _measure(drawn, rhythm, shapes, patient, electrodes, rng)
    findings = _with_derived(drawn, measurements["axis_deg"])
    if not render:
        return Recording(findings, measurements, np.zeros((9, 0), np.float32))
    dipole_mv = _trajectory(drawn, rhythm, shapes, measurements["qtc_ms"], person.breaths_hz, rng)
    return Recording(findings, measurements, electrodes.astype(np.float32) @ dipole_mv)


def _measure(
    drawn: frozenset[str],
    rhythm: Rhythm,
    shapes: BeatShapes,
    patient: Patient,
    electrodes: Float[np.ndarray, "9 3"],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Intervals and axis of the tracing as displayed, cable swaps and mirrored hearts included."""
    rate = rhythm.heart_rate_bpm
    qtc_ms = patient.constitution.qtc_ms + 0.7 * max(0.0, shapes.qrs_ms - 100)
    if "long_qt" in drawn:
        qtc_ms = float(rng.uniform(492, 580)) + 0.4 * max(0.0, shapes.qrs_ms - 100)
    elif "short_qt" in drawn:
        qtc_ms = float(rng.uniform(300, 336))
    qrs = mirrored(shapes.qrs) if "dextrocardia" in drawn else shapes.qrs
    to_leads = ELECTRODES_TO_LEADS @ (_ARMS_SWAPPED if "arm_lead_reversal" in drawn else np.eye(9)) @ electrodes
    return {
        "heart_rate_bpm": rate,
        "pr_ms": rhythm.pr_ms,
        "qrs_ms": shapes.qrs_ms,
        "qt_ms": qtc_ms * (60 / rate) ** (1 / 3),
        "qtc_ms": qtc_ms,
        "axis_deg": frontal_axis_deg(qrs, to_leads),
    }


def _with_derived(drawn: frozenset[str], axis_deg: float) -> frozenset[str]:
    """Adds what follows from the tracing: sinus rhythm, the axis, and that nothing is abnormal."""
    findings = set(drawn) - {"left_axis_deviation", "right_axis_deviation"}
    if drawn.isdisjoint(_AXIS_HIDDEN):
        if -90 <= axis_deg < -30:
            findings.add("left_axis_deviation")
        elif axis_deg > 95 or axis_deg < -150:
            findings.add("right_axis_deviation")
    if drawn.isdisjoint((*RHYTHMS, *SINUS_RATES)):
        findings.add("sinus_rhythm")
    if findings == {"sinus_rhythm"}:
        findings.add("normal_ecg")
    return frozenset(findings)


def _trajectory(
    drawn: frozenset[str],
    rhythm: Rhythm,
    shapes: BeatShapes,
    qtc_ms: float,
    breaths_hz: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "3 time"]:
    """The dipole over ten seconds: atrial waves, P waves and QRS-T complexes, breathing with the chest."""
    dipole_mv = _atrial_wave(rhythm, rng)
    phase = rng.uniform(0, 2 * math.pi)
    for p_kind, table in shapes.p.items():
        onset = rhythm.p_onset_s[rhythm.p_kind == p_kind]
        _render(dipole_mv, onset, table, np.full(len(onset), 400.0), breaths_hz, phase, rng)
    qt_ms = _qt_per_beat(rhythm, qtc_ms)
    for kind, table in shapes.qrs_t.items():
        chosen = rhythm.qrs_kind == kind
        qt = qt_ms[chosen]
        if kind is QrsKind.PREMATURE:
            qt = np.maximum(qt, 400.0)
        _render(dipole_mv, rhythm.qrs_onset_s[chosen], table, qt, breaths_hz, phase, rng)
    if "dextrocardia" in drawn:
        dipole_mv[0] *= -1
    return dipole_mv


def _render(
    dipole_mv: Float32[np.ndarray, "3 time"],
    onset_s: Float[np.ndarray, " event"],
    table: Components,
    qt_ms: Float[np.ndarray, " event"],
    breaths_hz: float,
    phase: float,
    rng: np.random.Generator,
) -> None:
    """Renders events that vary a little from beat to beat and turn with breathing."""
    events = np.repeat(table[None], len(onset_s), axis=0)
    breath = np.sin(2 * np.pi * breaths_hz * onset_s + phase)
    factor = 1 + 0.05 * breath[:, None] * np.array([1.0, -0.5, 0.8]) + rng.normal(0, 0.015, (len(onset_s), 3))
    events[..., XYZ] *= factor[:, None, :]
    render_events(dipole_mv, onset_s, events, qt_ms)


def _qt_per_beat(rhythm: Rhythm, qtc_ms: float) -> Float[np.ndarray, " qrs"]:
    """QT follows the rate slowly: half the mean RR, half the interval before the beat (Fridericia's exponent)."""
    intervals = np.diff(rhythm.qrs_onset_s)
    mean = intervals.mean()
    before = np.concatenate([[mean], intervals])
    return np.asarray(qtc_ms * np.clip(0.5 * mean + 0.5 * before, 0.28, 1.7) ** (1 / 3))


def _atrial_wave(rhythm: Rhythm, rng: np.random.Generator) -> Float32[np.ndarray, "3 time"]:
    """Nothing, the chaos of fibrillation (largest in V1), or the sawtooth of flutter (negative in II, III, aVF)."""
    if rhythm.atrial_wave == "none":
        return np.zeros((3, STORED_SAMPLES), np.float32)
    if rhythm.atrial_wave == "flutter":
        cycle = 2 * np.pi * rhythm.atrial_hz * (_TIME_S - rhythm.qrs_onset_s[0])
        saw = sum(np.sin(k * cycle + 1.2) / k for k in (1, 2, 3, 4))
        direction = np.array([0.02, -0.14, -0.06]) * rng.uniform(0.8, 1.5)
        return np.outer(direction, saw).astype(np.float32)
    waves = np.zeros((3, STORED_SAMPLES), np.float32)
    size = rng.uniform(0.018, 0.045)
    for share in (0.75, 1.0, 1.3):
        wobble = rng.uniform(0.6, 1.6) * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * _TIME_S + rng.uniform(0, 6.28))
        chaos = np.sin(2 * np.pi * rhythm.atrial_hz * share * _TIME_S + wobble * 2 + rng.uniform(0, 6.28))
        direction = size * (np.array([-0.2, 0.6, -1.0]) + rng.normal(0, 0.3, 3))
        waves += np.outer(direction, chaos).astype(np.float32)
    return waves
