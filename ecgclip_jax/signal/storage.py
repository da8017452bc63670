"""From a record as read to the one form that datasets hold and models see: `StoredECG`.

int16 microvolts, 500 Hz, 12 leads by name, 10 s. Nothing is repaired, guessed or rescaled here: what is missing is
stored as missing, what looks wrong becomes a quality flag.

- **Rate**: polyphase resampling (`scipy.signal.resample_poly`) with odd extension at the ends. Gaps are bridged by
  straight lines for the filter and are missing again afterwards: a stored sample is missing where either source sample
  beside its instant is. The few stored samples after the source's last instant (four at 100 Hz) are extrapolated.
- **Leads**: by name; a lead that the record has not is missing throughout. Leads outside the twelve are dropped and
  flagged (`extra_leads_dropped`).
- **Length**: consecutive windows of 10 s without overlap. A shorter record stands at the start of one window and the
  rest is missing (`padded_short`). The remainder of a longer one is kept, likewise padded, if it fills at least half
  a window. A window without any present sample is left out; `window_index` keeps its place in time.
- **Amplitude**: rounded to 1 µV; what exceeds ±32,767 µV is stored as that and counted in `n_saturated`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int16

from ecgclip_jax.signal.quality import QualityFlag, assess
from ecgclip_jax.signal.record import ConverterUnits, ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.spec.signal import MISSING_UV, STORED_LEADS, STORED_RATE_HZ, STORED_SAMPLES

LARGEST_UV: Final = 32767
MIN_REMAINDER_SAMPLES: Final = STORED_SAMPLES // 2
"""A shorter remainder of a long record would be mostly padding (our choice)."""
SOURCE_RATES_HZ: Final = (50.0, 20000.0)
"""Below 50 Hz no QRS complex survives; above 20 kHz stands no ECG recorder."""
FILTER_HALF_WIDTH: Final = 20
"""Half length of the resampling filter in samples of the slower rate: the pass band ends at 86 % of its Nyquist."""
FILTER_KAISER_BETA: Final = 9.0
"""90 dB of stop-band attenuation (Kaiser's formula)."""
_RATE_TOLERANCE: Final = 1e-6
"""Relative error allowed when a rate becomes a fraction: 10 µs over the 10 s of a window."""


@dataclass(frozen=True, slots=True)
class StoredECG:
    """One 10 s window of a record, as datasets hold it; NaN nowhere, `MISSING_UV` where a sample is missing."""

    record_id: str
    ecg_uv: Int16[np.ndarray, "5000 12"]
    window_index: int
    n_windows: int
    """Windows the record was cut into, left-out empty ones included."""
    lead_present: Bool[np.ndarray, "12"]
    """Whether a lead has any present sample in this window."""
    n_saturated: int
    rate_hz_source: float
    resolution_uv: float
    band_low_hz: float | None
    band_high_hz: float | None
    mains_hz: float | None
    quality_flags: tuple[str, ...]

    @property
    def waveform_sha256(self) -> str:
        """SHA-256 of the samples, little-endian, time by lead: equal for equal waveforms, whatever their names."""
        return hashlib.sha256(np.ascontiguousarray(self.ecg_uv, dtype="<i2").data).hexdigest()


def to_stored(record: ECGRecord, *, keep_windows: Literal["all", "first"] = "all") -> list[StoredECG]:
    """Cuts a record into stored windows; see the module's text for the rules.

    Args:
        record: as read.
        keep_windows: every window, or only the first that holds a sample.

    Raises:
        ECGReadError: `no_known_lead`, `duplicate_lead`, `rate_unusable`, `empty` (no present sample at all).
    """
    columns, flags_of_record = _columns(record), _flags_of_facts(record)
    signal_uv = _whole_microvolts(record, columns)
    if signal_uv is None:
        signal_uv = resample_to_stored_rate(_twelve_leads(record, columns), record.rate_hz)
    starts = _window_starts(signal_uv.shape[0])
    windows = []
    for index, start in enumerate(starts):
        window_uv = signal_uv[start : start + STORED_SAMPLES]
        ecg_uv, n_saturated = quantise(window_uv)
        if not (lead_present := (ecg_uv != MISSING_UV).any(axis=0)).any():
            continue
        flags = assess(ecg_uv, n_padded=STORED_SAMPLES - window_uv.shape[0], n_saturated=n_saturated)
        windows.append(
            StoredECG(
                record_id=record.record_id,
                ecg_uv=np.ascontiguousarray(ecg_uv),
                window_index=index,
                n_windows=len(starts),
                lead_present=lead_present,
                n_saturated=n_saturated,
                rate_hz_source=record.rate_hz,
                resolution_uv=record.facts.resolution_uv,
                band_low_hz=record.facts.band_low_hz,
                band_high_hz=record.facts.band_high_hz,
                mains_hz=record.facts.mains_hz,
                quality_flags=tuple(str(flag) for flag in (*flags, *flags_of_record)),
            )
        )
        if keep_windows == "first":
            break
    if not windows:
        raise ECGReadError.because(
            ReasonCode.empty,
            record.record_id,
            expected="at least one present sample in a standard lead",
            found=f"{record.n_samples} samples, all of them missing",
            remedy="Leave the record out.",
        )
    return windows


def _columns(record: ECGRecord) -> list[int]:
    """The column of each stored lead, -1 for a lead that the record has not."""
    columns: dict[str, int] = {}
    for column, lead in enumerate(record.leads):
        if lead not in STORED_LEADS:
            continue
        first = columns.setdefault(lead, column)
        if first != column and not _same_signal(record, first, column):
            raise ECGReadError.because(
                ReasonCode.duplicate_lead,
                record.record_id,
                expected="each lead once",
                found=f"two different signals named {lead}",
                remedy="Only the source can say which one is right: correct the header, or leave the record out.",
            )
    if not columns:
        raise ECGReadError.because(
            ReasonCode.no_known_lead,
            record.record_id,
            expected=f"at least one of {', '.join(STORED_LEADS)}",
            found=", ".join(record.leads) or "no lead",
            remedy="Name the leads in the header as the standard does, or leave the record out.",
        )
    return [columns.get(lead, -1) for lead in STORED_LEADS]


def _same_signal(record: ECGRecord, first: int, second: int) -> bool:
    signal_uv = record.signal_uv
    return np.array_equal(signal_uv[:, first], signal_uv[:, second], equal_nan=True)


def _whole_microvolts(record: ECGRecord, columns: Sequence[int]) -> Int16[np.ndarray, "time 12"] | None:
    """What is stored of a record that is so already but for a whole factor; None where there is more to do."""
    if record.rate_hz != STORED_RATE_HZ or -1 in columns or not isinstance(record.samples, ConverterUnits):
        return None
    whole = record.samples.whole_microvolts(columns)
    return None if whole is None else whole.T


def _twelve_leads(record: ECGRecord, columns: Sequence[int]) -> Float32[np.ndarray, "time 12"]:
    """The standard leads in stored order; NaN where the record lacks one or is not finite."""
    signal_uv = record.signal_uv
    full = signal_uv if list(columns) == list(range(signal_uv.shape[1])) else signal_uv[:, columns]
    lacking = [lead for lead, column in enumerate(columns) if column < 0]
    if lacking:
        full[:, lacking] = np.nan
    if np.isinf(full).any():
        full = np.where(np.isinf(full), np.float32(np.nan), full)
    return full


def resample_to_stored_rate(
    signal_uv: Float32[np.ndarray, "time lead"], rate_hz: float
) -> Float32[np.ndarray, "out lead"]:
    """Resamples to 500 Hz; NaN marks gaps in and out.

    Raises:
        ECGReadError: `rate_unusable` outside `SOURCE_RATES_HZ` or where no usable fraction of 500 Hz is near.
    """
    low, high = SOURCE_RATES_HZ
    ratio = Fraction(STORED_RATE_HZ / rate_hz).limit_denominator(10_000) if low <= rate_hz <= high else None
    if ratio is None or abs(float(ratio) * rate_hz / STORED_RATE_HZ - 1) > _RATE_TOLERANCE:
        raise ECGReadError.because(
            ReasonCode.rate_unusable,
            "sampling rate",
            expected=f"{low:g} to {high:g} Hz, a fraction of {STORED_RATE_HZ} Hz with terms up to 10,000",
            found=f"{rate_hz} Hz",
            remedy="Correct the rate in the header, or resample the record beforehand.",
        )
    if ratio == 1 or not len(signal_uv):
        return signal_uv
    from scipy.signal import resample_poly  # here: half a second of import that 500 Hz records never need

    up, down = ratio.numerator, ratio.denominator
    missing = np.isnan(signal_uv)
    has_gaps = bool(missing.any())
    filled = _bridge_gaps(signal_uv, missing) if has_gaps else signal_uv
    # Odd extension: without it the ends ring, since a zero-padded filter sees each lead's offset as a step.
    taps = _resampling_filter(up, down)
    extended = resample_poly(filled, up, down, axis=0, window=taps, padtype="antireflect")  # type: ignore[call-overload]
    resampled = np.asarray(extended, np.float32)
    if has_gaps:
        before = np.arange(resampled.shape[0]) * down // up
        exact = np.arange(resampled.shape[0]) * down % up == 0
        after = np.minimum(np.where(exact, before, before + 1), len(missing) - 1)
        resampled[missing[before] | missing[after]] = np.nan
    return resampled


@lru_cache(maxsize=64)
def _resampling_filter(up: int, down: int) -> Float32[np.ndarray, " tap"]:
    """Low-pass at the lower of the two Nyquist frequencies, 90 dB down: scipy's default passes images at 0.1 %, which
    on a 5 mV offset is 5 µV of ripple.
    """
    from scipy.signal import firwin

    slower = max(up, down)
    taps = firwin(2 * FILTER_HALF_WIDTH * slower + 1, 1.0 / slower, window=("kaiser", FILTER_KAISER_BETA))
    return np.asarray(taps, np.float32)


def _bridge_gaps(
    signal_uv: Float32[np.ndarray, "time lead"], missing: Bool[np.ndarray, "time lead"]
) -> Float32[np.ndarray, "time lead"]:
    """Straight lines over gaps, the nearest value beyond the ends, zero for a lead without samples."""
    filled = signal_uv.copy()
    instants = np.arange(len(signal_uv))
    for lead in np.flatnonzero(missing.any(axis=0)):
        gap = missing[:, lead]
        filled[gap, lead] = 0.0 if gap.all() else np.interp(instants[gap], instants[~gap], signal_uv[~gap, lead])
    return filled


def _window_starts(n_samples: int) -> list[int]:
    full, remainder = divmod(n_samples, STORED_SAMPLES)
    n_windows = max(full + (remainder >= MIN_REMAINDER_SAMPLES), 1)
    return [index * STORED_SAMPLES for index in range(n_windows)]


def quantise(
    window_uv: Float32[np.ndarray, "time 12"] | Int16[np.ndarray, "time 12"],
) -> tuple[Int16[np.ndarray, "5000 12"], int]:
    """Whole microvolts, NaN and padding as `MISSING_UV`, and how many samples had to be clipped to ±32,767 µV."""
    whole, n_saturated = (window_uv, 0) if window_uv.dtype == np.int16 else _rounded(window_uv)
    if len(whole) == STORED_SAMPLES:
        return whole, n_saturated
    ecg_uv = np.full((STORED_SAMPLES, 12), MISSING_UV, np.int16)
    ecg_uv[: len(whole)] = whole
    return ecg_uv, n_saturated


def _rounded(signal_uv: Float32[np.ndarray, "time 12"]) -> tuple[Int16[np.ndarray, "time 12"], int]:
    rounded = np.rint(signal_uv)
    if max(-rounded.min(initial=0), rounded.max(initial=0)) <= LARGEST_UV:  # false with a NaN among them
        return rounded.astype(np.int16), 0
    n_saturated = int(np.count_nonzero(np.abs(rounded) > LARGEST_UV))
    clipped = np.clip(rounded, -LARGEST_UV, LARGEST_UV)
    return np.where(np.isnan(clipped), np.float32(MISSING_UV), clipped).astype(np.int16), n_saturated


def _flags_of_facts(record: ECGRecord) -> list[QualityFlag]:
    facts = record.facts
    told = (
        (QualityFlag.gain_assumed, facts.gain_assumed),
        (QualityFlag.checksum_mismatch, facts.checksum_mismatch),
        (QualityFlag.extra_leads_dropped, record.extra_leads),
    )
    return [flag for flag, leads in told if leads]
