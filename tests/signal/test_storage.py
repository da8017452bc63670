"""Stored windows: what is kept, what is missing, what is counted."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from ecgclip_jax.signal.record import ConverterUnits, ECGReadError, ECGRecord, ReasonCode, SourceFacts
from ecgclip_jax.signal.storage import StoredECG, to_stored
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV


def record(signal_uv: np.ndarray, leads: tuple[str, ...] = LEADS_12, rate_hz: float = 500.0, **facts: Any) -> ECGRecord:
    """A record made in memory."""
    source = SourceFacts(format="test", resolution_uv=2.5, **facts)
    return ECGRecord("rec", signal_uv.astype(np.float32), leads, rate_hz, source)


def noise(n_samples: int, n_leads: int = 12, scale_uv: float = 300.0) -> np.ndarray:
    """White noise in microvolts."""
    return np.random.default_rng(1).normal(0, scale_uv, (n_samples, n_leads)).astype(np.float32)


def only(windows: list[StoredECG]) -> StoredECG:
    """The one window there must be."""
    assert len(windows) == 1
    return windows[0]


def smooth(rate_hz: float, duration_s: float, n_leads: int = 12) -> np.ndarray:
    """Sines of 1 to 40 Hz with offsets, which any resampler must reproduce."""
    t = np.arange(round(rate_hz * duration_s))[:, None] / rate_hz
    frequency_hz = np.linspace(1, 40, n_leads)
    return 800 * np.sin(2 * np.pi * frequency_hz * t + np.arange(n_leads)) + 50 * np.arange(n_leads)


def test_ten_seconds_at_500_hz_are_only_rounded() -> None:
    signal_uv = noise(5000)
    facts: dict[str, Any] = {"band_low_hz": 0.05, "band_high_hz": 150.0, "mains_hz": 50.0}
    window = only(to_stored(record(signal_uv, **facts)))
    np.testing.assert_array_equal(window.ecg_uv, np.rint(signal_uv.astype(np.float32)))
    assert window.ecg_uv.dtype == np.int16
    assert (window.window_index, window.n_windows, window.n_saturated) == (0, 1, 0)
    assert window.lead_present.all()
    assert (window.rate_hz_source, window.resolution_uv) == (500.0, 2.5)
    assert (window.band_low_hz, window.band_high_hz, window.mains_hz) == (0.05, 150.0, 50.0)
    assert window.record_id == "rec"


def test_leads_go_by_name() -> None:
    """MIMIC-IV-ECG's order, with a Frank lead between."""
    signal_uv = noise(5000, 13)
    leads = ("I", "II", "III", "aVR", "vx", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    window = only(to_stored(record(signal_uv, leads)))
    columns = [leads.index(lead) for lead in LEADS_12]
    np.testing.assert_array_equal(window.ecg_uv, np.rint(signal_uv[:, columns]))
    assert "extra_leads_dropped" in window.quality_flags


def test_missing_leads_stay_missing_and_nothing_is_derived() -> None:
    window = only(to_stored(record(noise(5000, 2), ("II", "V5"))))
    assert [lead for lead, there in zip(LEADS_12, window.lead_present, strict=True) if there] == ["II", "V5"]
    assert (window.ecg_uv[:, ~window.lead_present] == MISSING_UV).all()
    assert "missing_lead" in window.quality_flags


def test_gaps_stay_gaps() -> None:
    signal_uv = noise(5000)
    signal_uv[100:200, 3] = np.nan
    signal_uv[300, 4] = np.inf
    window = only(to_stored(record(signal_uv)))
    np.testing.assert_array_equal(window.ecg_uv == MISSING_UV, ~np.isfinite(signal_uv))
    assert window.n_saturated == 0
    assert "missing_samples" in window.quality_flags


def test_saturation_is_clipped_and_counted_but_the_sentinel_is_no_value() -> None:
    signal_uv = noise(5000)
    signal_uv[:4, 0] = [32767.4, 32768.0, -32768.0, 1e9]
    window = only(to_stored(record(signal_uv)))
    assert window.ecg_uv[:4, 0].tolist() == [32767, 32767, -32767, 32767]
    assert window.n_saturated == 3
    assert "saturated" in window.quality_flags


@pytest.mark.parametrize(
    ("n_samples", "lengths"),
    [
        (1, [1]),
        (2400, [2400]),
        (5000, [5000]),
        (7499, [5000]),
        (7500, [5000, 2500]),
        (9999, [5000, 4999]),
        (10000, [5000, 5000]),
        (12499, [5000, 5000]),
        (12500, [5000, 5000, 2500]),
    ],
)
def test_windows_and_padding(n_samples: int, lengths: list[int]) -> None:
    signal_uv = noise(n_samples)
    windows = to_stored(record(signal_uv))
    assert [window.window_index for window in windows] == list(range(len(lengths)))
    assert {window.n_windows for window in windows} == {len(lengths)}
    for index, (window, length) in enumerate(zip(windows, lengths, strict=True)):
        np.testing.assert_array_equal(window.ecg_uv[:length], np.rint(signal_uv[5000 * index : 5000 * index + length]))
        assert (window.ecg_uv[length:] == MISSING_UV).all()
        assert ("padded_short" in window.quality_flags) == (length < 5000)
        assert "missing_samples" not in window.quality_flags


def test_only_the_first_window_on_request() -> None:
    window = only(to_stored(record(noise(20000)), keep_windows="first"))
    assert (window.window_index, window.n_windows) == (0, 4)


def test_a_window_without_samples_is_left_out_and_the_others_keep_their_place() -> None:
    signal_uv = noise(15000)
    signal_uv[5000:10000] = np.nan
    windows = to_stored(record(signal_uv))
    assert [(window.window_index, window.n_windows) for window in windows] == [(0, 3), (2, 3)]


@pytest.mark.parametrize("rate_hz", [100.0, 250.0, 257.0, 360.0, 400.0, 1000.0, 999.9, 128.0])
def test_resampling_reproduces_what_is_below_both_nyquist_frequencies(rate_hz: float) -> None:
    window = only(to_stored(record(smooth(rate_hz, 10), rate_hz=rate_hz)))
    error_uv = np.abs(window.ecg_uv - smooth(500, 10))
    assert error_uv[250:-250].max() < 0.6  # half a microvolt is rounding
    assert window.rate_hz_source == rate_hz


def test_resampling_agrees_with_scipys_own_filter() -> None:
    signal_uv = smooth(1000, 10)
    window = only(to_stored(record(signal_uv, rate_hz=1000.0)))
    assert np.abs(window.ecg_uv - resample_poly(signal_uv, 1, 2, axis=0, padtype="line"))[100:-100].max() < 4


def test_what_500_hz_cannot_hold_is_removed() -> None:
    t = np.arange(20000)[:, None] / 2000
    window = only(to_stored(record(1000 * np.sin(2 * np.pi * 300 * t + np.arange(12)), rate_hz=2000.0)))
    assert np.abs(window.ecg_uv[250:-250]).max() <= 1


def test_ends_do_not_ring_on_an_offset() -> None:
    window = only(to_stored(record(np.full((1000, 12), 5000.0), rate_hz=100.0)))
    assert np.abs(window.ecg_uv - 5000).max() <= 1


@pytest.mark.parametrize("rate_hz", [100.0, 360.0, 1000.0])
def test_gaps_survive_resampling_and_do_not_reach_beyond_a_sample(rate_hz: float) -> None:
    signal_uv = smooth(rate_hz, 10)
    first, last = round(3 * rate_hz), round(3.5 * rate_hz)
    signal_uv[first : last + 1, 2] = np.nan
    signal_uv[:, 7] = np.nan
    window = only(to_stored(record(signal_uv, rate_hz=rate_hz)))
    missing_s = np.flatnonzero(window.ecg_uv[:, 2] == MISSING_UV) / 500
    assert 3 - 1 / rate_hz < missing_s.min() <= 3
    assert 3.5 <= missing_s.max() < 3.5 + 1 / rate_hz
    assert len(missing_s) == round((missing_s.max() - missing_s.min()) * 500) + 1
    assert not window.lead_present[7]
    untouched = np.delete(np.arange(12), [2, 7])
    assert (window.ecg_uv[:, untouched] != MISSING_UV).all()
    # Far from the gap the lead is what it would have been without it.
    np.testing.assert_allclose(window.ecg_uv[2000:-250, 2], smooth(500, 10)[2000:-250, 2], atol=4)


def test_two_signals_of_one_name() -> None:
    signal_uv = noise(5000, 2)
    with pytest.raises(ECGReadError) as caught:
        to_stored(record(signal_uv, ("II", "II")))
    assert caught.value.reason == ReasonCode.duplicate_lead
    signal_uv[:, 1] = signal_uv[:, 0]
    window = only(to_stored(record(signal_uv, ("II", "II"))))
    np.testing.assert_array_equal(window.ecg_uv[:, 1], np.rint(signal_uv[:, 0]))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(noise(5000, 2), ("MLII", "vx")), ReasonCode.no_known_lead),
        (record(np.full((5000, 12), np.nan)), ReasonCode.empty),
        (record(np.zeros((0, 12))), ReasonCode.empty),
        (record(np.full((2000, 12), np.nan), rate_hz=360.0), ReasonCode.empty),
        (record(noise(50), rate_hz=1e-9), ReasonCode.rate_unusable),
        (record(noise(50), rate_hz=49.9), ReasonCode.rate_unusable),
        (record(noise(50), rate_hz=1e9), ReasonCode.rate_unusable),
    ],
)
def test_records_that_cannot_be_stored(made: ECGRecord, reason: ReasonCode) -> None:
    with pytest.raises(ECGReadError) as caught:
        to_stored(made)
    assert caught.value.reason == reason


def test_what_the_reader_noticed_becomes_a_flag() -> None:
    window = only(to_stored(record(noise(5000), gain_assumed=("I",), checksum_mismatch=("V1",))))
    assert {"gain_assumed", "checksum_mismatch"} <= set(window.quality_flags)


def test_the_hash_is_of_the_waveform_alone() -> None:
    signal_uv = noise(5000)
    window = only(to_stored(record(signal_uv)))
    assert window.waveform_sha256 == hashlib.sha256(np.rint(signal_uv).astype("<i2").tobytes()).hexdigest()
    other = ECGRecord("other", signal_uv.astype(np.float32), LEADS_12, 500.0, SourceFacts("x", 1.0))
    assert only(to_stored(other)).waveform_sha256 == window.waveform_sha256
    signal_uv[17, 3] += 5
    assert only(to_stored(record(signal_uv))).waveform_sha256 != window.waveform_sha256


@pytest.mark.parametrize(
    ("resolution_uv", "baseline", "is_exact"), [(1.0, 0, 1), (5.0, 0, 1), (4.88, 0, 0), (5.0, 8, 0)]
)
@pytest.mark.parametrize("largest", [900, 30000])
@pytest.mark.parametrize("gap", [False, True])
def test_the_short_way_from_converter_units_stores_what_the_way_over_floats_does(
    resolution_uv: float, baseline: int, is_exact: bool, largest: int, gap: bool
) -> None:
    raw = np.random.default_rng(1).integers(-largest, largest, (5300, 13)).astype(np.int16)
    if gap:
        raw[100:200, 4] = MISSING_UV
    leads = (*LEADS_12[6:], "vx", *LEADS_12[:6])
    units = ConverterUnits(raw, (baseline,) * 13, (resolution_uv,) * 13)
    facts = SourceFacts("x", resolution_uv)
    short = to_stored(ECGRecord("rec", units, leads, 500.0, facts))
    long = to_stored(ECGRecord("rec", units.microvolts(), leads, 500.0, facts))
    columns = [leads.index(lead) for lead in LEADS_12]
    fits = largest * resolution_uv <= 32767
    assert (units.whole_microvolts(columns) is not None) == (is_exact and fits)
    assert len(short) == len(long) == 1
    np.testing.assert_array_equal(short[0].ecg_uv, long[0].ecg_uv)
    assert (short[0].n_saturated, short[0].quality_flags) == (long[0].n_saturated, long[0].quality_flags)
