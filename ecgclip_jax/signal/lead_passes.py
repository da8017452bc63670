"""What quality checks ask of every sample, compiled: each question is one pass over the int16 samples as they are.

A build asks them of every ECG it writes. numpy answers each with temporaries larger than the recording, and takes ten
times as long for all of them together. Recordings are lead by lead and contiguous, `MISSING_UV` where a sample is
missing; sums are exact integers, whatever the machine. Limits are arguments: what is compiled is kept on disk, and
would not notice that a constant of another module changed.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int64

from ecgclip_jax.spec.signal import MISSING_UV

_LARGEST = np.int16(32767)
_MISSING = np.int16(MISSING_UV)


class Limits(NamedTuple):
    """What the measures are told by."""

    half_qrs_samples: int
    halves_per_beat: int
    flat_range_uv: int
    held_min_leads: int
    rail_run_samples: int
    rail_min_uv: int
    saturated_uv: int
    residual_min_samples: int


class Measures(NamedTuple):
    """What is told of a recording; arrays are by lead."""

    n_present: Int64[np.ndarray, "lead"]
    flat: Bool[np.ndarray, "lead"]
    """Leads that have samples, but not range enough for a heart."""
    usable: Bool[np.ndarray, "lead"]
    """Leads that have samples and are not flat; the other measures are of these."""
    longest_held: int
    """Samples in a row at which no lead changes; 0 where there are too few leads to tell."""
    on_rail: Bool[np.ndarray, "lead"]
    """Leads that were clipped at one of their extremes: it is the largest storable, or they stay there."""
    qrs_uv: Float64[np.ndarray, "lead"]
    """See `quality.qrs_peak_to_peak_uv`."""
    qrs_middle_mv: float
    """Median of the leads; NaN where none has a whole window."""
    qrs_largest_mv: float
    residuals_uv: Float64[np.ndarray, "constraint"]
    """Root mean square of each constraint; NaN where a lead that it is about is not usable, or for too few samples."""
    constrained_rms_uv: float
    """Root mean square of the usable leads that constraints are about, each around its mean."""


@numba.njit(nogil=True, cache=True)
@no_type_check
def measure(by_lead, limits, constraints):
    """The `Measures` of a recording.

    Args:
        by_lead: int16[lead, time].
        limits: `Limits`.
        constraints: float64[constraint, first leads], linear combinations that are constant in a faultless recording.
    """
    n_leads = by_lead.shape[0]
    n_present, lowest, half_lowest, half_highest = extremes(by_lead, limits.half_qrs_samples)
    highest = np.full(n_leads, _MISSING, np.int16)
    flat, usable = np.zeros(n_leads, np.bool_), np.zeros(n_leads, np.bool_)
    clipped = np.zeros(n_leads, np.bool_)
    for lead in range(n_leads):
        for half in range(half_highest.shape[1]):
            highest[lead] = max(highest[lead], half_highest[lead, half])
        low, high = np.int64(lowest[lead]), np.int64(highest[lead])
        flat[lead] = n_present[lead] > 0 and high - low <= limits.flat_range_uv
        usable[lead] = n_present[lead] > 0 and not flat[lead]
        clipped[lead] = max(abs(low), abs(high)) >= limits.saturated_uv
    repeats = np.zeros(by_lead.shape[1], np.bool_)
    if usable.sum() >= limits.held_min_leads:
        repeats = held(by_lead, usable)
    low_rests = rests(by_lead, lowest, repeats, limits.rail_run_samples, limits.rail_min_uv)
    high_rests = rests(by_lead, highest, repeats, limits.rail_run_samples, limits.rail_min_uv)
    qrs_uv = qrs_swings(half_lowest, half_highest, by_lead.shape[1] // limits.half_qrs_samples, limits.halves_per_beat)
    known = np.empty(n_leads, np.float64)
    n_known = 0
    for lead in range(n_leads):
        if usable[lead] and not np.isnan(qrs_uv[lead]):
            known[n_known] = qrs_uv[lead] / 1000
            n_known += 1
    middle = median(known, n_known)
    first = constraints.shape[1]
    residuals_uv, rms_uv = residuals(by_lead[:first], usable[:first], constraints, limits.residual_min_samples)
    return Measures(
        n_present,
        flat,
        usable,
        longest_run(repeats),
        usable & (clipped | low_rests | high_rests),
        qrs_uv,
        middle,
        known[n_known - 1] if n_known else np.nan,
        residuals_uv,
        rms_uv,
    )


@numba.njit(nogil=True, cache=True)
@no_type_check
def median(values, n):
    """Median of the first `n` of float64[:], which it sorts; NaN for none."""
    for i in range(1, n):
        value, j = values[i], i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
    return (values[(n - 1) // 2] + values[n // 2]) / 2 if n else np.nan


@numba.njit(nogil=True, cache=True)
@no_type_check
def qrs_swings(half_lowest, half_highest, n_whole, per_beat):
    """Median over beats, float64[lead], of the largest swing within two halves; NaN for a lead without any.

    Args:
        half_lowest: int16[lead, half] of `extremes`; two halves count where no sample is missing.
        half_highest: likewise.
        n_whole: how many halves are of full length.
        per_beat: halves that hold a beat; a last piece counts from half its length.
    """
    n_leads, n_swings = half_lowest.shape[0], n_whole - 1
    medians = np.full(n_leads, np.nan)
    if n_swings < 1:
        return medians
    beats = np.empty(n_swings, np.float64)
    for lead in range(n_leads):
        low, high = half_lowest[lead], half_highest[lead]
        n_beats = 0
        for start in range(0, max(n_swings - per_beat // 2, 1), per_beat):
            largest = np.int64(-1)
            for half in range(start, min(start + per_beat, n_swings)):
                bottom = min(low[half], low[half + 1])
                if bottom != _MISSING:
                    largest = max(largest, np.int64(max(high[half], high[half + 1])) - bottom)
            if largest >= 0:
                beats[n_beats] = largest
                n_beats += 1
        medians[lead] = median(beats, n_beats)
    return medians


@numba.njit(nogil=True, cache=True)
@no_type_check
def extremes(by_lead, piece):
    """Range of every lead, and of every piece of it.

    Args:
        by_lead: int16[lead, time].
        piece: samples per piece; the last one may be shorter.

    Returns:
        Number of present samples, int64[lead], and their lowest, int16[lead] (32767 for a lead without any); lowest and
        highest value of each piece, int16[lead, piece]: `MISSING_UV` is the lowest where a sample is missing.
    """
    n_leads, n_samples = by_lead.shape
    n_pieces = (n_samples + piece - 1) // piece
    n_present = np.full(n_leads, n_samples, np.int64)
    lowest_present = np.full(n_leads, _LARGEST, np.int16)
    lowest = np.full((n_leads, n_pieces), _LARGEST, np.int16)
    highest = np.full((n_leads, n_pieces), _MISSING, np.int16)
    for lead in range(n_leads):
        for p in range(n_pieces):
            samples = by_lead[lead, p * piece : (p + 1) * piece]
            low, high = _LARGEST, _MISSING
            for t in range(samples.shape[0]):
                low, high = min(low, samples[t]), max(high, samples[t])
            lowest[lead, p], highest[lead, p] = low, high
            if low == _MISSING:
                low = _LARGEST
                for t in range(samples.shape[0]):
                    if samples[t] == _MISSING:
                        n_present[lead] -= 1
                    else:
                        low = min(low, samples[t])
            lowest_present[lead] = min(lowest_present[lead], low)
    return n_present, lowest_present, lowest, highest


@numba.njit(nogil=True, cache=True)
@no_type_check
def held(by_lead, chosen):
    """Samples, bool[time], at which every chosen lead repeats its last value and none is missing."""
    n_samples = by_lead.shape[1]
    repeats = np.ones(n_samples, np.bool_)
    repeats[:1] = False
    for lead in np.flatnonzero(chosen):
        samples = by_lead[lead]
        for t in range(1, n_samples):
            repeats[t] &= (samples[t] == samples[t - 1]) & (samples[t] != _MISSING)
    return repeats


@numba.njit(nogil=True, cache=True)
@no_type_check
def longest_run(chosen):
    """Length of the longest unbroken run of True in bool[time]."""
    longest = run = 0
    for t in range(chosen.shape[0]):
        run = run + 1 if chosen[t] else 0
        longest = max(longest, run)
    return longest


@numba.njit(nogil=True, cache=True)
@no_type_check
def rests(by_lead, value, excepted, at_least, farther_than):
    """Leads, bool[lead], that stay at their `value` for `at_least` samples in a row, `excepted` ones not counted.

    Only values at least `farther_than` from zero count.
    """
    n_leads, n_samples = by_lead.shape
    found = np.zeros(n_leads, np.bool_)
    for lead in range(n_leads):
        samples = by_lead[lead]
        touches = False  # so many samples in a row hold one whose number is a multiple of that: few leads go further
        if abs(np.int64(value[lead])) >= farther_than:
            for t in range(0, n_samples, at_least):
                touches |= samples[t] == value[lead]
        if touches:
            there = np.empty(n_samples, np.bool_)
            for t in range(n_samples):
                there[t] = samples[t] == value[lead] and not excepted[t]
            found[lead] = longest_run(there) >= at_least
    return found


@numba.njit(nogil=True, cache=True)
@no_type_check
def moments(by_lead, chosen):
    """Sums int64[lead] and products int64[lead, lead] over the samples at which no chosen lead is missing.

    The leads that are not chosen count as zero. Returns the number of those samples first.
    """
    n_leads, n_samples = by_lead.shape
    together = np.ones(n_samples, np.int16)
    for lead in np.flatnonzero(chosen):
        samples = by_lead[lead]
        for t in range(n_samples):
            together[t] &= samples[t] != _MISSING
    counted = np.zeros((n_leads, n_samples), np.int16)
    for lead in np.flatnonzero(chosen):
        samples, kept = by_lead[lead], counted[lead]
        for t in range(n_samples):
            kept[t] = samples[t] * together[t]
    n_together = np.int64(0)
    for t in range(n_samples):
        n_together += together[t]
    sums = np.zeros(n_leads, np.int64)
    products = np.zeros((n_leads, n_leads), np.int64)
    for lead in range(n_leads):
        one = counted[lead]
        total = np.int64(0)
        for t in range(n_samples):
            total += one[t]
        sums[lead] = total
        for other in range(lead, n_leads):
            two = counted[other]
            product = np.int64(0)
            for t in range(n_samples):
                product += np.int64(one[t]) * np.int64(two[t])
            products[lead, other] = products[other, lead] = product
    return n_together, sums, products


@numba.njit(nogil=True, cache=True)
@no_type_check
def residuals(by_lead, usable, constraints, min_samples):
    """Root mean square of each constraint, float64[constraint], and of the usable leads; see `Measures`."""
    n_leads, n_constraints = by_lead.shape[0], constraints.shape[0]
    found = np.full(n_constraints, np.nan)
    n, sums, products = moments(by_lead, usable)
    if n < max(min_samples, 1):
        return found, np.nan
    covariance, total = np.empty((n_leads, n_leads)), 0.0
    for a in range(n_leads):
        for b in range(n_leads):
            covariance[a, b] = products[a, b] / n - (sums[a] / n) * (sums[b] / n)
        total += covariance[a, a]
    for row in range(n_constraints):
        testable, variance = True, 0.0
        for a in range(n_leads):
            testable &= usable[a] or constraints[row, a] == 0
            for b in range(n_leads):
                variance += constraints[row, a] * constraints[row, b] * covariance[a, b]
        if testable:
            found[row] = np.sqrt(max(variance, 0.0))
    return found, np.sqrt(max(total, 0.0) / max(usable.sum(), 1))
