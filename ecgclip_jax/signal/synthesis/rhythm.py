"""When the atria and the ventricles fire: from the rhythm findings of a recording to its P and QRS onsets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.signal.synthesis.patients import Constitution

START_S, END_S = -1.6, 11.0
"""Beats are made beyond both ends of the ten seconds, so that waves are cut, not missing, at the edges."""


class PKind(IntEnum):
    """Where an atrial wave comes from."""

    SINUS = 0
    ECTOPIC = 1
    RETROGRADE = 2


class QrsKind(IntEnum):
    """Where a ventricular beat comes from."""

    CONDUCTED = 0
    PREMATURE = 1
    PACED = 2
    ESCAPE = 3
    TACHYCARDIA = 4


@dataclass(frozen=True)
class Rhythm:
    """Onsets in seconds from the start of the recording, sorted. `pr_ms` is NaN where no P is conducted steadily."""

    p_onset_s: Float[np.ndarray, " p"]
    p_kind: Int[np.ndarray, " p"]
    qrs_onset_s: Float[np.ndarray, " qrs"]
    qrs_kind: Int[np.ndarray, " qrs"]
    pr_ms: float
    atrial_wave: Literal["none", "fibrillation", "flutter"] = "none"
    atrial_hz: float = 0.0

    @property
    def heart_rate_bpm(self) -> float:
        """Mean ventricular rate over the ten seconds."""
        inside = self.qrs_onset_s[(self.qrs_onset_s >= 0) & (self.qrs_onset_s < 10)]
        return float(60 * (len(inside) - 1) / (inside[-1] - inside[0]))


def draw_rhythm(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Onsets of every wave of a recording with these findings."""
    for finding, make in _RHYTHMS.items():
        if finding in findings:
            rhythm = make(findings, person, rng)
            break
    else:
        rhythm = _sinus(findings, person, rng)
    if not findings.isdisjoint(("premature_ventricular_complexes", "ventricular_bigeminy")):
        rhythm = _with_premature_ventricular(rhythm, "ventricular_bigeminy" in findings, rng)
    return rhythm


def _rhythm(
    p_onset_s: Float[np.ndarray, " p"],
    qrs_onset_s: Float[np.ndarray, " qrs"],
    *,
    p_kind: PKind = PKind.SINUS,
    qrs_kind: QrsKind = QrsKind.CONDUCTED,
    pr_ms: float = math.nan,
) -> Rhythm:
    return Rhythm(
        p_onset_s, np.full(len(p_onset_s), int(p_kind)), qrs_onset_s, np.full(len(qrs_onset_s), int(qrs_kind)), pr_ms
    )


def _without_p(
    qrs_onset_s: Float[np.ndarray, " qrs"], wave: Literal["fibrillation", "flutter"], atrial_hz: float
) -> Rhythm:
    return replace(_rhythm(np.zeros(0), qrs_onset_s), atrial_wave=wave, atrial_hz=atrial_hz)


def _train(rate_bpm: float, rng: np.random.Generator, jitter: float = 0.012) -> Float[np.ndarray, " beats"]:
    """Nearly regular onsets with a random phase."""
    rr_s = 60 / rate_bpm
    n = int((END_S - START_S) / (rr_s * (1 - 3 * jitter))) + 2
    steps = rr_s * (1 + jitter * np.clip(rng.standard_normal(n), -2.5, 2.5))
    onsets = START_S + rr_s * rng.random() + np.cumsum(steps) - steps[0]
    return np.asarray(onsets[onsets < END_S])


def _sinus_rate_bpm(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> float:
    if "sinus_bradycardia" in findings:
        return float(rng.uniform(38, 58))
    if "sinus_tachycardia" in findings:
        return float(rng.uniform(102, 156))
    return float(np.clip(person.heart_rate_bpm + rng.normal(0, 6), 62, 97))


def _sinus(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Sinus node with respiratory arrhythmia and, where drawn, premature atrial beats that reset it."""
    rr_s = 60 / _sinus_rate_bpm(findings, person, rng)
    depth = rng.uniform(0.15, 0.24) if "sinus_arrhythmia" in findings else rng.uniform(0.0, 0.025)
    phase = rng.uniform(0, 2 * math.pi)
    premature = _premature_beats(rr_s, rng) if "premature_atrial_complexes" in findings else set()
    onsets, kinds = [START_S + rr_s * rng.random()], [int(PKind.SINUS)]
    while onsets[-1] < END_S:
        beat = len(onsets)
        step = rr_s * (
            1 + depth * math.sin(2 * math.pi * person.breaths_hz * onsets[-1] + phase) + rng.normal(0, 0.012)
        )
        if beat in premature:
            step *= rng.uniform(0.55, 0.70)
        elif beat - 1 in premature:
            step *= rng.uniform(1.10, 1.25)
        onsets.append(onsets[-1] + step)
        kinds.append(int(PKind.ECTOPIC if beat in premature else PKind.SINUS))
    p_onset_s, p_kind = np.array(onsets), np.array(kinds)
    pr_ms = _pr_ms(findings, person, rng)
    delay_s = np.where(p_kind == PKind.ECTOPIC, min(pr_ms, 150.0) + 10, pr_ms) / 1000
    qrs_onset_s = p_onset_s + delay_s
    return Rhythm(p_onset_s, p_kind, qrs_onset_s, np.zeros(len(qrs_onset_s), int), pr_ms)


def _pr_ms(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> float:
    if "ventricular_preexcitation" in findings:
        return float(rng.uniform(84, 112))
    if "first_degree_av_block" in findings:
        return float(rng.uniform(226, 330))
    return float(np.clip(person.pr_ms + rng.normal(0, 5), 122, 196))


def _premature_beats(rr_s: float, rng: np.random.Generator) -> set[int]:
    """Numbers of the premature beats: one to four, inside the ten seconds, never two in a row."""
    first, last = math.ceil(-START_S / rr_s) + 2, int((9.5 - START_S) / rr_s)
    slots = np.arange(first, max(last, first + 1), 2)
    return set(rng.permutation(slots)[: 1 + int(rng.integers(4))].tolist())


def _with_premature_ventricular(rhythm: Rhythm, bigeminy: bool, rng: np.random.Generator) -> Rhythm:
    """Replaces conducted beats by earlier ventricular ones; the sinus P after them is not conducted."""
    onset, kind = rhythm.qrs_onset_s.copy(), rhythm.qrs_kind.copy()
    inside = np.flatnonzero((onset > 0.9) & (onset < 9.6))
    if bigeminy:
        chosen = np.arange(int(rng.integers(1, 3)), len(onset), 2)
    else:
        chosen = rng.permutation(inside[:: 2 + int(rng.integers(2))])[: 1 + int(rng.integers(4))]
    coupling = rng.uniform(0.52, 0.66)
    kind[chosen] = int(QrsKind.PREMATURE)
    interval = onset[chosen] - onset[chosen - 1]
    onset[chosen] = onset[chosen - 1] + np.maximum(interval * coupling, 0.34) * (1 + rng.normal(0, 0.02, len(chosen)))
    return replace(rhythm, qrs_onset_s=onset, qrs_kind=kind)


def _fibrillation(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Irregularly irregular conduction: independent log-normal RR intervals above the node's refractory time."""
    mean_s, spread = 60 / rng.uniform(50, 160), rng.uniform(0.18, 0.30)
    steps = np.maximum(mean_s * np.exp(spread * rng.standard_normal(48) - spread**2 / 2), 0.33)
    onsets = START_S + np.cumsum(steps)
    onsets = onsets[onsets < END_S]
    empty = np.zeros(0)
    return Rhythm(
        empty,
        empty.astype(int),
        onsets,
        np.zeros(len(onsets), int),
        math.nan,
        "fibrillation",
        float(rng.uniform(5.5, 8.2)),
    )


def _flutter(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Circus movement near 300/min with 2:1, 3:1, 4:1 or variable conduction."""
    atrial_hz = float(rng.uniform(4.1, 5.4))
    cycles = np.arange(START_S, END_S, 1 / atrial_hz) + rng.random() / atrial_hz
    ratio = (2, 2, 3, 4, 4, 0)[int(rng.integers(6))]
    if ratio:
        conducted = np.arange(0, len(cycles), ratio)
    else:
        conducted = np.cumsum(2 * rng.integers(1, 3, len(cycles)))
        conducted = conducted[conducted < len(cycles)]
    onsets = cycles[conducted] + rng.normal(0, 0.004, len(conducted))
    return _without_p(onsets, "flutter", atrial_hz)


def _supraventricular_tachycardia(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Re-entry: fast, regular, the retrograde P hidden in the QRS or on the ST segment."""
    qrs = _train(rng.uniform(132, 200), rng, jitter=0.004)
    hidden = rng.random() < 0.5
    p_onset_s = np.zeros(0) if hidden else qrs + rng.uniform(0.085, 0.12)
    return _rhythm(p_onset_s, qrs, p_kind=PKind.RETROGRADE)


def _junctional(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Narrow escape without sinus P: the retrograde P before, inside or after the QRS."""
    qrs = _train(rng.uniform(38, 96), rng)
    place = int(rng.integers(3))
    p_onset_s = (qrs - rng.uniform(0.075, 0.105), np.zeros(0), qrs + rng.uniform(0.10, 0.15))[place]
    return _rhythm(p_onset_s, qrs, p_kind=PKind.RETROGRADE)


def _ventricular_tachycardia(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Broad, regular, with atria that go on at their own pace."""
    qrs = _train(rng.uniform(112, 190), rng, jitter=0.008)
    return _rhythm(_train(rng.uniform(65, 100), rng), qrs, qrs_kind=QrsKind.TACHYCARDIA)


def _third_degree(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Complete dissociation: sinus P and a slow escape from the junction or the ventricle."""
    atria = _train(rng.uniform(66, 108), rng)
    if rng.random() < 0.5:
        return _rhythm(atria, _train(rng.uniform(40, 62), rng), qrs_kind=QrsKind.CONDUCTED)
    return _rhythm(atria, _train(rng.uniform(28, 46), rng), qrs_kind=QrsKind.ESCAPE)


def _mobitz_1(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Wenckebach: PR grows by shrinking steps until a P is not conducted."""
    p_onset_s = _train(rng.uniform(58, 98), rng)
    period, start = int(rng.integers(3, 6)), int(rng.integers(5))
    place = (np.arange(len(p_onset_s)) + start) % period
    first_ms, step_ms = rng.uniform(170, 215), rng.uniform(60, 95)
    pr_ms = first_ms + step_ms * (1 - 0.6**place) / 0.4
    conducted = place < period - 1
    return _rhythm(p_onset_s, (p_onset_s + pr_ms / 1000)[conducted])


def _mobitz_2(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Constant PR, every second to fourth P suddenly not conducted."""
    p_onset_s = _train(rng.uniform(60, 102), rng)
    period, start = int(rng.integers(2, 5)), int(rng.integers(4))
    conducted = (np.arange(len(p_onset_s)) + start) % period < period - 1
    pr_ms = float(np.clip(person.pr_ms + rng.normal(10, 8), 130, 225))
    return _rhythm(p_onset_s, (p_onset_s + pr_ms / 1000)[conducted], pr_ms=pr_ms)


def _paced(findings: frozenset[str], person: Constitution, rng: np.random.Generator) -> Rhythm:
    """Ventricular pacing, half of it following the sinus P, half regardless of the atria."""
    if rng.random() < 0.5:
        p_onset_s = _train(rng.uniform(60, 92), rng)
        return _rhythm(p_onset_s, p_onset_s + rng.uniform(0.13, 0.19), qrs_kind=QrsKind.PACED)
    atria = _train(rng.uniform(60, 95), rng) if rng.random() < 0.5 else np.zeros(0)
    return _rhythm(atria, _train(rng.uniform(50, 92), rng, jitter=0.001), qrs_kind=QrsKind.PACED)


_RHYTHMS: dict[str, Callable[[frozenset[str], Constitution, np.random.Generator], Rhythm]] = {
    "paced_rhythm": _paced,
    "ventricular_tachycardia": _ventricular_tachycardia,
    "third_degree_av_block": _third_degree,
    "second_degree_av_block_mobitz_2": _mobitz_2,
    "second_degree_av_block_mobitz_1": _mobitz_1,
    "junctional_rhythm": _junctional,
    "supraventricular_tachycardia": _supraventricular_tachycardia,
    "atrial_flutter": _flutter,
    "atrial_fibrillation": _fibrillation,
}
