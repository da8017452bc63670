"""What looks wrong with a stored ECG. Suspicions only: nothing here changes a sample, and nothing is an exclusion.

`assess` gives the flags that travel with a record; `find` gives the same with a sentence and the measured value each,
for audits and for the page a person looks at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int, Int16

from ecgclip_jax.signal import lead_passes
from ecgclip_jax.signal.leads import LIMB_LEADS
from ecgclip_jax.spec.signal import MISSING_UV, STORED_LEADS, STORED_RATE_HZ

SATURATED_UV: Final = 32767
"""Largest storable magnitude; far beyond any heart, so a sample there was clipped."""
RAIL_RUN_SAMPLES: Final = STORED_RATE_HZ // 10
"""A lead that stays at its own largest or smallest value for 100 ms hit a rail: no wave has so long a flat top."""
RAIL_MIN_UV: Final = 1000
"""…but only 1 mV away from zero: a quiet baseline rests that long at its extreme once it is rounded."""
FROZEN_SAMPLES: Final = STORED_RATE_HZ // 2
"""All leads together unchanged for half a second: held or padded with zeros, for noise alone moves some lead. All of
PTB-XL's first 400 records at 500 Hz end in 0.1 s of held values: too short to matter, so not flagged."""
FROZEN_MIN_LEADS: Final = 3
"""Fewer leads may well rest, or be clipped, at the same time."""
FLAT_RANGE_UV: Final = 10
"""Peak to peak of a lead without a heart in it: two steps of a 5 µV converter, the coarsest in common use."""
QRS_RANGE_MV: Final = (0.2, 5.0)
"""Plausible QRS peak-to-peak, median over leads. Of 500 real records (PTB-XL, Challenge 2021, PTB) 498 lie between 0.43
and 3.2; the other two, at 4.9 and 12, have gains in doubt."""
LARGEST_QRS_MV: Final = 10.0
"""Plausible QRS peak-to-peak of the largest lead; at most 6.9 in the same 498 records."""
QRS_WINDOW_SAMPLES: Final = STORED_RATE_HZ // 10
"""100 ms hold most of a QRS complex but little of the baseline's wander."""
BEAT_WINDOW_SAMPLES: Final = 2 * STORED_RATE_HZ
"""2 s hold a beat at 30 per minute and above."""
TYPICAL_QRS_MV: Final = 1.1
"""Median over leads, then over PTB-XL's first 400 records; used only to name the likeliest factor."""
UNIT_FACTORS: Final = (1e-6, 1e-3, 0.2, 5.0, 1e3, 1e6)
"""Mistakes that happen: V, mV and µV confused; a gain of 200 per mV taken for 1000, or the reverse."""
RESIDUAL_MIN_UV: Final = 20.0
"""Root mean square that rounding and resampling cannot explain: 899 of 900 real records (PTB-XL at both rates,
Challenge 2021, PTB) stay below 3 µV, one with a disturbed lead has 38; LUDB, whose leads are scaled one by one, has a
median of 50."""
RESIDUAL_MIN_SHARE: Final = 0.05
"""…and a twentieth of the limb leads' own root mean square, so that gains need not agree better than that."""
ORDER_GAIN: Final = 4.0
"""A mistake in the leads' order is suspected where undoing it shrinks the residuals at least four times."""
_MIN_SAMPLES: Final = STORED_RATE_HZ
"""Less than one second of simultaneous limb leads tells nothing."""

_LIMB_CONSTRAINTS: Final = np.array(
    [
        [1.0, -1.0, 1.0, 0.0, 0.0, 0.0],  # I + III = II
        [0.5, 0.5, 0.0, 1.0, 0.0, 0.0],  # aVR = -(I + II) / 2
        [-1.0, 0.5, 0.0, 0.0, 1.0, 0.0],  # aVL = I - II / 2
        [0.5, -1.0, 0.0, 0.0, 0.0, 1.0],  # aVF = II - I / 2
    ]
)


_LIMITS: Final = lead_passes.Limits(
    half_qrs_samples=QRS_WINDOW_SAMPLES // 2,
    halves_per_beat=BEAT_WINDOW_SAMPLES // (QRS_WINDOW_SAMPLES // 2),
    flat_range_uv=FLAT_RANGE_UV,
    held_min_leads=FROZEN_MIN_LEADS,
    rail_run_samples=RAIL_RUN_SAMPLES,
    rail_min_uv=RAIL_MIN_UV,
    saturated_uv=SATURATED_UV,
    residual_min_samples=_MIN_SAMPLES,
)


class QualityFlag(StrEnum):
    """A suspicion about a stored ECG."""

    missing_samples = "missing_samples"
    missing_lead = "missing_lead"
    padded_short = "padded_short"
    flat_lead = "flat_lead"
    saturated = "saturated"
    frozen = "frozen"
    amplitude_suspect_unit = "amplitude_suspect_unit"
    einthoven_residual = "einthoven_residual"
    goldberger_residual = "goldberger_residual"
    lead_order_suspect = "lead_order_suspect"
    gain_assumed = "gain_assumed"
    checksum_mismatch = "checksum_mismatch"
    extra_leads_dropped = "extra_leads_dropped"


@dataclass(frozen=True, slots=True)
class Finding:
    """A flag with the measured value and a sentence that says what it means."""

    flag: QualityFlag
    message: str
    value: float


def assess(ecg_uv: Int16[np.ndarray, "time 12"], *, n_padded: int = 0, n_saturated: int = 0) -> tuple[QualityFlag, ...]:
    """The flags of `find`, in its order."""
    return tuple([finding.flag for finding in find(ecg_uv, n_padded=n_padded, n_saturated=n_saturated)])


def find(ecg_uv: Int16[np.ndarray, "time 12"], *, n_padded: int = 0, n_saturated: int = 0) -> tuple[Finding, ...]:
    """All suspicions about a stored ECG.

    Args:
        ecg_uv: stored microvolts at 500 Hz, leads in the order of `STORED_LEADS`, `MISSING_UV` where missing.
        n_padded: samples at the end that the source never had; they count as padding, not as gaps.
        n_saturated: samples that were clipped when they were stored.
    """
    by_lead = np.ascontiguousarray(ecg_uv[: len(ecg_uv) - n_padded].T)
    measures = lead_passes.measure(by_lead, _LIMITS, _LIMB_CONSTRAINTS)
    findings = [*_completeness(measures.n_present, by_lead.shape[1], n_padded)]
    if measures.flat.any():
        n_flat = float(measures.flat.sum())
        findings.append(Finding(QualityFlag.flat_lead, f"no heart visible in {_names(measures.flat)}", n_flat))
    if measures.longest_held >= FROZEN_SAMPLES:
        message = f"no lead changes for {measures.longest_held / STORED_RATE_HZ:.2f} s: held or padded with a constant"
        findings.append(Finding(QualityFlag.frozen, message, float(measures.longest_held)))
    findings += _saturation(measures.on_rail, n_saturated)
    findings += _amplitude(measures.qrs_middle_mv, measures.qrs_largest_mv)
    findings += _limb_lead_algebra(by_lead[:6], measures)
    return tuple(findings)


def _names(chosen: Bool[np.ndarray, "lead"]) -> str:
    return ", ".join(STORED_LEADS[lead] for lead in np.flatnonzero(chosen))


def _completeness(n_present: Int[np.ndarray, "lead"], n_samples: int, n_padded: int) -> Iterator[Finding]:
    missing = n_present == 0
    if gaps := int((n_samples - n_present)[~missing].sum()):
        yield Finding(QualityFlag.missing_samples, f"{gaps} samples missing inside the recording", float(gaps))
    if missing.any():
        yield Finding(QualityFlag.missing_lead, f"no sample of {_names(missing)}", float(missing.sum()))
    if n_padded:
        seconds = n_samples / STORED_RATE_HZ
        yield Finding(QualityFlag.padded_short, f"{seconds:.2f} s recorded, the rest is missing", float(n_padded))


def _saturation(on_rail: Bool[np.ndarray, "lead"], n_saturated: int) -> Iterator[Finding]:
    if on_rail.any() or n_saturated:
        clipped = f"{n_saturated} samples beyond ±{SATURATED_UV} µV" if n_saturated else "the signal rests on a rail"
        yield Finding(QualityFlag.saturated, f"{clipped}: {_names(on_rail)}", float(max(n_saturated, on_rail.sum())))


def qrs_peak_to_peak_uv(by_lead: Int16[np.ndarray, "lead time"]) -> Float64[np.ndarray, "lead"]:
    """Largest swing within 100 ms, median over windows of 2 s; NaN for a lead without a whole window.

    Windows of 100 ms overlap by half and count only where no sample is `MISSING_UV`.
    """
    return np.asarray(lead_passes.measure(by_lead, _LIMITS, _LIMB_CONSTRAINTS).qrs_uv)


def _amplitude(middle_mv: float, largest_mv: float) -> Iterator[Finding]:
    if math.isnan(middle_mv):
        return
    low, high = QRS_RANGE_MV
    if low <= middle_mv <= high and largest_mv <= LARGEST_QRS_MV:
        return
    factor = min(UNIT_FACTORS, key=lambda f: abs(np.log(max(middle_mv, 1e-9) / TYPICAL_QRS_MV / f)))
    mistake = f"perhaps {factor:g} times too {'large' if factor > 1 else 'small'} in unit or gain"
    measured = f"QRS peak-to-peak {middle_mv:.3g} mV (median of leads; largest {largest_mv:.3g})"
    message = f"{measured}, expected {low:g} to {high:g}: {mistake}; it was not rescaled"
    yield Finding(QualityFlag.amplitude_suspect_unit, message, middle_mv)


def _limb_lead_algebra(limb: Int16[np.ndarray, "limb time"], measures: lead_passes.Measures) -> Iterator[Finding]:
    usable, testable = measures.usable[:6], ~np.isnan(measures.residuals_uv)
    residuals = measures.residuals_uv[testable]
    limit_uv = max(RESIDUAL_MIN_UV, RESIDUAL_MIN_SHARE * measures.constrained_rms_uv)
    if not testable[0] or residuals.max() <= limit_uv:
        return
    n_together, sums, products = lead_passes.moments(limb, usable)
    means = sums / n_together  # electrodes may have offsets of their own
    gram, constraints = products / n_together - np.outer(means, means), _LIMB_CONSTRAINTS[testable]
    order = _likeliest_mistake(constraints, gram, float(np.sqrt((residuals**2).sum())))
    if order is not None:
        yield Finding(QualityFlag.lead_order_suspect, f"{order} would fit the other limb leads", float(residuals.max()))
    if residuals[0] > limit_uv:
        message = f"I + III - II has a root mean square of {residuals[0]:.0f} µV"
        spans = np.ptp(limb[usable][:, (limb[usable] != MISSING_UV).all(axis=0)].astype(np.float64), axis=1)
        if spans.max() < 1.01 * spans.min():
            message += "; all limb leads span the same range: they were scaled one by one"
        yield Finding(QualityFlag.einthoven_residual, message, float(residuals[0]))
    elif order is None:
        worst = ("aVR", "aVL", "aVF")[int(np.flatnonzero(testable)[int(residuals.argmax())]) - 1]
        yield Finding(
            QualityFlag.goldberger_residual,
            f"{worst} differs from what I and II make it by a root mean square of {residuals.max():.0f} µV",
            float(residuals.max()),
        )


def _residuals_uv(
    constraints: Float64[np.ndarray, "constraint limb"], gram: Float64[np.ndarray, "limb limb"]
) -> Float64[np.ndarray, "constraint"]:
    """Root mean square of each constraint, from the leads' second moments alone."""
    return np.asarray(np.sqrt(np.maximum(np.einsum("cl,lm,cm->c", constraints, gram, constraints), 0.0)))


def _likeliest_mistake(
    constraints: Float64[np.ndarray, "constraint limb"], gram: Float64[np.ndarray, "limb limb"], residual_uv: float
) -> str | None:
    """The exchange of two limb leads, or the inversion of one, that shrinks the residuals `ORDER_GAIN` times.

    Only mistakes made after the limb leads were formed can show: electrodes on the wrong limbs keep the algebra.
    """
    best, best_uv = None, residual_uv / ORDER_GAIN
    for first, second in combinations(range(6), 2):
        order = np.arange(6)
        order[[first, second]] = second, first
        remaining_uv = float(np.linalg.norm(_residuals_uv(constraints, gram[np.ix_(order, order)])))
        if remaining_uv < best_uv:
            best, best_uv = f"{LIMB_LEADS[first]} and {LIMB_LEADS[second]} exchanged", remaining_uv
    for lead in range(6):
        sign = np.where(np.arange(6) == lead, -1.0, 1.0)
        remaining_uv = float(np.linalg.norm(_residuals_uv(constraints * sign, gram)))
        if remaining_uv < best_uv:
            best, best_uv = f"{LIMB_LEADS[lead]} upside down", remaining_uv
    return best
