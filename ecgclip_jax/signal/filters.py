"""The linear part of a model's input as scipy defines it, in float64 on the host (no jax).

`filtfilt` with its end padding, notches and polyphase resampling are linear in the 5000 samples of a complete window.
`linear_steps` names them as plain functions; `ecgclip_jax.signal.operators` pushes the identity through these very
functions to get the operator that the device applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import signal as scipy_signal

from ecgclip_jax.spec.signal import STORED_RATE_HZ, STORED_SAMPLES, Bandpass, MainsNotch, SignalSpec

MAINS_HZ: tuple[float | None, ...] = (None, 50.0, 60.0)
"""What a record's mains frequency may be; the position in this tuple is the variant of an operator."""

_MAX_ORDER_IN_FLOAT64 = 3
"""A band-pass of order n is a polynomial of degree 2n with all poles near 1. In float64 scipy's own rounding reaches
1e-9 mV at order 3, 1e-6 at order 4 and 1e-3 at order 5 (real ECGs, 0.67-40 Hz); extended precision removes it."""

Step = Callable[[np.ndarray], np.ndarray]
"""Acts on the last axis, float64 in and out."""


@dataclass(frozen=True)
class LinearSegment:
    """Steps that follow each other with nothing non-linear between: `common`, then those of one mains variant."""

    common: tuple[Step, ...]
    variants: tuple[tuple[Step, ...], ...]
    samples_out: int


def bandpass(signal: np.ndarray, spec: Bandpass) -> np.ndarray:
    """Zero-phase Butterworth band-pass at 500 Hz along the last axis (`scipy.signal.filtfilt`)."""
    b, a = scipy_signal.butter(spec.order, (spec.low_hz, spec.high_hz), btype="bandpass", fs=STORED_RATE_HZ)
    if spec.padding == "gust":
        return np.asarray(scipy_signal.filtfilt(b, a, signal, method="gust"))
    if spec.order > _MAX_ORDER_IN_FLOAT64:
        return _filtfilt_extended(b, a, signal)
    return np.asarray(scipy_signal.filtfilt(b, a, signal, padtype="odd"))


def _filtfilt_extended(b: np.ndarray, a: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """`scipy.signal.filtfilt` with odd padding, the same coefficients and initial conditions, in extended precision."""
    pad = 3 * max(len(a), len(b))
    before, after = signal[..., pad:0:-1], signal[..., -2 : -pad - 2 : -1]
    padded = np.concatenate([2 * signal[..., :1] - before, signal, 2 * signal[..., -1:] - after], axis=-1)
    b_long, a_long, settled, filtered = (x.astype(np.longdouble) for x in (b, a, scipy_signal.lfilter_zi(b, a), padded))
    for _ in ("forward", "backward"):
        filtered, _ = scipy_signal.lfilter(b_long, a_long, filtered, axis=-1, zi=settled * filtered[..., :1])
        filtered = filtered[..., ::-1]
    return np.asarray(filtered[..., pad:-pad], np.float64)


def mains_notch(signal: np.ndarray, spec: MainsNotch, mains_hz: float) -> np.ndarray:
    """Zero-phase notch at `mains_hz` and, if the spec says so, at its harmonics up to the Nyquist frequency.

    A harmonic that falls on the Nyquist frequency itself (250 Hz of 50 Hz) counts, as in ECGCLIP's released code.
    """
    nyquist_hz = STORED_RATE_HZ / 2
    n_notches = int(nyquist_hz // mains_hz) if spec.harmonics else 1
    for harmonic in range(1, n_notches + 1):
        b, a = scipy_signal.iirnotch(harmonic * mains_hz, spec.q, fs=STORED_RATE_HZ)
        signal = np.asarray(scipy_signal.filtfilt(b, a, signal, padtype=spec.padding))
    return signal


def resample(signal: np.ndarray, rate_hz: float, samples_out: int) -> np.ndarray:
    """Polyphase resampling from 500 Hz (`scipy.signal.resample_poly`, zeros beyond the ends) to `samples_out`."""
    ratio = Fraction(rate_hz / STORED_RATE_HZ).limit_denominator(5000)
    resampled = np.asarray(scipy_signal.resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1))
    missing = samples_out - resampled.shape[-1]
    if missing > 0:
        return np.pad(resampled, [(0, 0)] * (resampled.ndim - 1) + [(0, missing)])
    return resampled[..., :samples_out]


def linear_segments(spec: SignalSpec) -> tuple[LinearSegment | None, LinearSegment | None]:
    """The linear work before and after the median baseline (all of it before, where there is none).

    None stands for a segment with nothing to do.
    """
    before: list[str] = []
    after: list[str] = []
    target = before
    for name in spec.filter_order:
        if name == "baseline" and spec.baseline:
            target = after
        elif getattr(spec, name):
            target.append(name)
    resampled = [*target, "resample"] if spec.rate_hz != STORED_RATE_HZ else target
    segments = (resampled, []) if target is before else (before, resampled)
    first, second = (_segment(spec, tuple(names)) for names in segments)
    return first, second


def _segment(spec: SignalSpec, names: tuple[str, ...]) -> LinearSegment | None:
    if not names:
        return None
    samples_out = spec.signal_samples if "resample" in names else STORED_SAMPLES
    if "notch" not in names:
        return LinearSegment(tuple(_step(spec, name, None) for name in names), ((),), samples_out)
    notch = names.index("notch")
    common = tuple(_step(spec, name, None) for name in names[:notch])
    variants = tuple(tuple(_step(spec, name, mains_hz) for name in names[notch:]) for mains_hz in MAINS_HZ)
    return LinearSegment(common, variants, samples_out)


def _step(spec: SignalSpec, name: str, mains_hz: float | None) -> Step:
    band, notch = spec.bandpass, spec.notch
    if name == "bandpass" and band:
        return lambda signal: bandpass(signal, band)
    if name == "notch" and notch:
        return (lambda signal: mains_notch(signal, notch, mains_hz)) if mains_hz else (lambda signal: signal)
    return lambda signal: resample(signal, spec.rate_hz, spec.signal_samples)
