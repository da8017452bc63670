"""What quality checks ask of every sample, compiled: each question is one pass over the int16 samples as they are.

A build asks them of every ECG it writes. numpy answers each with temporaries larger than the recording, and takes three
times as long for all of them together. Recordings are lead by lead and contiguous, `MISSING_UV` where a sample is
missing; sums are exact integers, whatever the machine.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from ecgclip_jax.spec.signal import MISSING_UV

_LARGEST = np.int16(32767)
_MISSING = np.int16(MISSING_UV)


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
def rests(by_lead, value, excepted, at_least):
    """Leads, bool[lead], that stay at their `value` for `at_least` samples in a row, `excepted` ones not counted."""
    n_leads, n_samples = by_lead.shape
    found = np.zeros(n_leads, np.bool_)
    for lead in range(n_leads):
        samples = by_lead[lead]
        touches = False  # so many samples in a row hold one whose number is a multiple of that: few leads go further
        for t in range(0, n_samples, at_least):
            touches |= samples[t] == value[lead]
        if touches:
            found[lead] = longest_run((samples == value[lead]) & ~excepted) >= at_least
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
