"""The filtered presets on real ECGs against the published chains written with scipy, in millivolts.

Every complete stored window takes part with `ECGCLIP_ALL_WINDOWS=1`; otherwise every fourth, to stay quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy import signal as scipy_signal

from ecgclip_jax.signal.preprocessing import build_operators, preprocess
from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.storage import to_stored
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV, SignalSpec, clef, ecgclip, ecgfounder

pytestmark = pytest.mark.real_data

LARGEST_ERROR_MV = 1e-3
BATCH = 32
ALL_WINDOWS = bool(os.environ.get("ECGCLIP_ALL_WINDOWS"))


@pytest.fixture(scope="module")
def windows(shared_data: Path) -> np.ndarray:
    """Complete stored windows of PTB-XL and of the Challenge's databases, int16 [n, 5000, 12]."""
    headers = sorted(shared_data.glob("ptbxl/records500/**/*.hea")) + sorted(
        shared_data.glob("challenge-2021/**/*.hea")
    )
    step = 1 if ALL_WINDOWS else 4
    stored = [window.ecg_uv for path in headers[::step] for window in to_stored(read_ecg(path))]
    complete = np.stack([ecg_uv for ecg_uv in stored if (ecg_uv != MISSING_UV).all()])
    assert len(complete) >= 350 // step
    return complete


def ecgclip_chain(ecg_mv: np.ndarray, mains_hz: float | None) -> np.ndarray:
    """ECGCLIP's released preprocessing; [record, lead, time] in, centre-padded to 4096."""
    b, a = scipy_signal.iirfilter(3, [0.5 / 250, 100 / 250], btype="bandpass", ftype="butter", output="ba")
    filtered = scipy_signal.filtfilt(b, a, ecg_mv, axis=-1, method="gust")
    for harmonic in range(1, int(250 // mains_hz) + 1) if mains_hz else ():
        b, a = scipy_signal.iirnotch(harmonic * mains_hz, 30.0, fs=500)
        filtered = scipy_signal.filtfilt(b, a, filtered, axis=-1, padtype="constant")
    return np.pad(scipy_signal.resample_poly(filtered, 4, 5, axis=-1), [(0, 0), (0, 0), (48, 48)])


def clef_by_plain_scipy(ecg_mv: np.ndarray) -> np.ndarray:
    """CLEF's filter as its code calls it; a polynomial of degree 10, in which float64 rounds by up to 2e-3 mV."""
    b, a = scipy_signal.butter(5, [0.67, 40], btype="band", fs=500)
    return scipy_signal.filtfilt(b, a, ecg_mv, axis=-1)


def clef_chain(ecg_mv: np.ndarray, mains_hz: float | None) -> np.ndarray:
    """The same filter, padding and initial conditions through scipy's `lfilter` in extended precision."""
    b, a = scipy_signal.butter(5, [0.67, 40], btype="band", fs=500)
    settled, n_pad = scipy_signal.lfilter_zi(b, a), 33
    ends = [(0, 0)] * (ecg_mv.ndim - 1) + [(n_pad, n_pad)]
    padded = np.pad(ecg_mv, ends, mode="reflect", reflect_type="odd").astype(np.longdouble)
    b_long, a_long = b.astype(np.longdouble), a.astype(np.longdouble)
    forward, _ = scipy_signal.lfilter(b_long, a_long, padded, zi=settled * padded[..., :1])
    backward, _ = scipy_signal.lfilter(b_long, a_long, forward[..., ::-1], zi=settled * forward[..., -1:])
    return backward[..., ::-1][..., n_pad:-n_pad].astype(float)


def ecgfounder_chain(ecg_mv: np.ndarray, mains_hz: float | None) -> np.ndarray:
    """ECGFounder's filters; scipy.ndimage's median is medfilt's (zeros beyond the ends), many times faster."""
    b, a = scipy_signal.iirnotch(mains_hz or 50.0, 30, fs=500)
    filtered = scipy_signal.filtfilt(b, a, ecg_mv, axis=-1)
    b, a = scipy_signal.butter(4, [0.67, 40], btype="bandpass", fs=500)
    filtered = scipy_signal.filtfilt(b, a, filtered, axis=-1)
    lines = filtered.reshape(-1, filtered.shape[-1])
    baseline = np.stack([ndimage.median_filter(line, size=201, mode="constant", cval=0.0) for line in lines])
    return filtered - baseline.reshape(filtered.shape)


Chain = Callable[[np.ndarray, float | None], np.ndarray]


@pytest.mark.parametrize(
    ("spec", "chain", "every"),
    [(ecgclip(), ecgclip_chain, 2), (clef("II"), clef_chain, 1), (ecgfounder(), ecgfounder_chain, 4)],
    ids=["ecgclip", "clef", "ecgfounder"],
)
def test_preset_equals_the_scipy_chain(spec: SignalSpec, chain: Chain, every: int, windows: np.ndarray) -> None:
    chosen = windows if ALL_WINDOWS else windows[::every]
    in_mv = spec.model_copy(update={"normalisation": "none"})
    operators = build_operators(in_mv)
    leads = [LEADS_12.index(lead) for lead in spec.leads]
    worst_mv = 0.0
    batch = min(BATCH, len(chosen))
    for start in range(0, len(chosen), batch):
        rows = np.arange(start, start + batch) % len(chosen)  # wraps, so that one shape is compiled
        mains_hz = np.array([50.0, 60.0, np.nan], np.float32)[rows % 3]
        extras, present = {"mains_hz": jnp.asarray(mains_hz)}, {"mains_hz": jnp.asarray(~np.isnan(mains_hz))}
        ours = np.asarray(preprocess(in_mv, operators, jnp.asarray(chosen[rows]), extras, present).signal)
        ecg_mv = chosen[rows][:, :, leads].swapaxes(1, 2) / 1000
        for remainder, hz in enumerate((50.0, 60.0, None)):
            same = rows % 3 == remainder
            expected = chain(ecg_mv[same], hz).swapaxes(1, 2)
            worst_mv = max(worst_mv, float(np.abs(ours[same] - expected).max()))
    print(f"{spec.name}: {len(chosen)} windows, largest error {worst_mv:.2e} mV")
    assert worst_mv <= LARGEST_ERROR_MV


def test_clef_differs_from_plain_scipy_by_scipys_own_rounding_only(windows: np.ndarray) -> None:
    spec = clef("II", normalisation="none")
    ours = np.asarray(preprocess(spec, build_operators(spec), jnp.asarray(windows[:BATCH]), {}, {}).signal)[:, :, 0]
    lead_mv = windows[:BATCH, :, 1] / 1000
    plain, extended = clef_by_plain_scipy(lead_mv), clef_chain(lead_mv, None)
    rounding_mv = np.abs(plain - extended).max(axis=1)
    assert (np.abs(ours - plain).max(axis=1) <= rounding_mv + 1e-5).all()
    assert rounding_mv.max() <= 3e-3


def test_clef_ends_with_a_zscore(windows: np.ndarray) -> None:
    spec = clef("V5")
    ours = np.asarray(preprocess(spec, build_operators(spec), jnp.asarray(windows[:BATCH]), {}, {}).signal)[:, :, 0]
    filtered = clef_chain(windows[:BATCH, :, LEADS_12.index("V5")] / 1000, None)
    mean, sd = (statistic(filtered, axis=1, keepdims=True) for statistic in (np.mean, np.std))
    np.testing.assert_allclose(ours, (filtered - mean) / (sd + 1e-8), atol=1e-3)
