"""Features that need no model: if a logistic regression on them does well, a benchmark proves little.

Rate by a simple R-peak count, per-lead mean, SD and peak-to-peak of the stored signal, age, sex.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int16
from scipy.signal import butter, find_peaks, sosfiltfilt

from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV, STORED_RATE_HZ

TRIVIAL_FEATURES = (
    "rate_per_min",
    *(f"{name}_{lead}" for name in ("mean_mv", "sd_mv", "peak_to_peak_mv") for lead in LEADS_12),
    "age_years",
    "female",
)
FLAT_UV = 100.0
"""A lead of smaller span is taken for flat."""
_DECIMATION = 4
_RATE_HZ = STORED_RATE_HZ / _DECIMATION


def trivial_features(
    ecg_uv: Int16[np.ndarray, "records time lead"],
    age_years: Float[np.ndarray, "records"],
    sex: list[str],
) -> Float[np.ndarray, "records features"]:
    """The features in the order of `TRIVIAL_FEATURES`, float32; NaN where unknown (see `fill_missing`)."""
    count, total, squares, lowest, highest = (a.astype(np.float64) for a in _lead_moments(ecg_uv))
    count[count == 0] = np.nan
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    span = np.where(np.isnan(count), np.nan, highest - lowest)
    female = np.array([{"female": 1.0, "male": 0.0}.get(s, np.nan) for s in sex])
    amplitudes = 1e-3 * np.concatenate([mean, spread, span], axis=1)
    rate = rate_per_min(ecg_uv, span)
    return np.concatenate([rate[:, None], amplitudes, age_years[:, None], female[:, None]], axis=1).astype(np.float32)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _lead_moments(ecg_uv):
    """Per record and lead: samples present, their sum, sum of squares, lowest and highest, all exact integers."""
    records, samples, leads = ecg_uv.shape
    count = np.zeros((records, leads), np.int64)
    total, squares = np.zeros_like(count), np.zeros_like(count)
    lowest = np.full((records, leads), 32767, np.int64)
    highest = np.full((records, leads), -32768, np.int64)
    for record in range(records):
        for time in range(samples):
            for lead in range(leads):
                value = np.int64(ecg_uv[record, time, lead])
                if value != MISSING_UV:
                    count[record, lead] += 1
                    total[record, lead] += value
                    squares[record, lead] += value * value
                    lowest[record, lead] = min(lowest[record, lead], value)
                    highest[record, lead] = max(highest[record, lead], value)
    return count, total, squares, lowest, highest


def rate_per_min(
    ecg_uv: Int16[np.ndarray, "records time lead"], span_uv: Float[np.ndarray, "records lead"]
) -> Float[np.ndarray, "records"]:
    """R peaks per minute in lead II, or in the lead of largest span where lead II is missing or flat; NaN if none is.

    Peaks of the squared 5-20 Hz signal smoothed over 0.12 s, at least 0.25 s apart and above a fifth of the median of
    its maxima in each second: a plain count that a baseline may use, not a delineator.
    """
    known_span = np.nan_to_num(span_uv, nan=0.0)
    lead_two = LEADS_12.index("II")
    lead = np.where(known_span[:, lead_two] > FLAT_UV, lead_two, known_span.argmax(axis=1))
    chosen = np.take_along_axis(ecg_uv, lead[:, None, None], axis=2)[:, :, 0]
    chosen = np.where(chosen == MISSING_UV, 0, chosen).astype(np.float32)
    slow = chosen[:, : chosen.shape[1] // _DECIMATION * _DECIMATION]
    slow = slow.reshape(len(chosen), -1, _DECIMATION).mean(axis=2)
    band = sosfiltfilt(butter(2, (5.0, 20.0), "bandpass", fs=_RATE_HZ, output="sos"), slow, axis=1)
    width = round(0.12 * _RATE_HZ)
    cumulated = np.cumsum(np.pad(band**2, ((0, 0), (width, 0))), axis=1)
    energy = (cumulated[:, width:] - cumulated[:, :-width]) / width
    seconds = energy.shape[1] / _RATE_HZ
    per_second = energy[:, : int(seconds) * int(_RATE_HZ)].reshape(len(energy), int(seconds), -1).max(axis=2)
    threshold = 0.2 * np.median(per_second, axis=1)
    beats = [
        len(find_peaks(e, height=t, distance=round(0.25 * _RATE_HZ))[0]) for e, t in zip(energy, threshold, strict=True)
    ]
    rate = np.array(beats) * 60.0 / seconds
    return np.where(known_span.max(axis=1) > 0, rate, np.nan)


def fill_missing(
    features: Float[np.ndarray, "records features"], medians: Float[np.ndarray, "features"]
) -> Float[np.ndarray, "records features"]:
    """Unknown values replaced by the training medians."""
    return np.where(np.isnan(features), medians, features).astype(np.float32)


def training_medians(features: Float[np.ndarray, "records features"]) -> Float[np.ndarray, "features"]:
    """Median of the known values of each feature; 0 for a feature that is never known."""
    medians = np.zeros(features.shape[1])
    for column, values in enumerate(features.T):
        known = values[~np.isnan(values)]
        medians[column] = np.median(known) if len(known) else 0.0
    return medians
