"""Trivial features: amplitudes against numpy, rate against the rate that was drawn, missing values."""

from __future__ import annotations

import numpy as np

from ecgclip_jax.evaluation.trivial import TRIVIAL_FEATURES, fill_missing, training_medians, trivial_features
from ecgclip_jax.spec.signal import MISSING_UV


def _ecgs(rates_per_min: list[float]) -> np.ndarray:
    time_s = np.arange(5000) / 500
    rng = np.random.default_rng(0)
    ecgs = []
    for rate in rates_per_min:
        phase_s = (time_s % (60 / rate)) - 30 / rate
        beat = 1000 * np.exp(-((phase_s / 0.015) ** 2)) + 250 * np.exp(-(((phase_s - 0.25) / 0.05) ** 2))
        ecgs.append(beat[:, None] * np.linspace(-1, 1, 12) + 15 * rng.normal(size=(5000, 12)))
    return np.array(ecgs).astype(np.int16)


def _features(ecg_uv: np.ndarray) -> dict[str, np.ndarray]:
    n = len(ecg_uv)
    values = trivial_features(ecg_uv, np.full(n, 60.0, np.float32), ["female", "male", "unknown", "male"][:n])
    return dict(zip(TRIVIAL_FEATURES, values.T, strict=True))


def test_rate_is_within_a_beat_of_the_truth() -> None:
    rates = [45.0, 75.0, 120.0, 170.0]
    np.testing.assert_allclose(_features(_ecgs(rates))["rate_per_min"], rates, atol=7)


def test_amplitudes_equal_numpy_over_the_samples_that_are_there() -> None:
    ecg = _ecgs([70.0, 90.0])
    ecg[0, 1000:2000, 3] = MISSING_UV
    there = np.delete(ecg[0, :, 3], np.arange(1000, 2000)) / 1000
    found = _features(ecg)
    np.testing.assert_allclose(found["mean_mv_aVR"][0], there.mean(), atol=1e-5)
    np.testing.assert_allclose(found["sd_mv_aVR"][0], there.std(), atol=1e-5)
    np.testing.assert_allclose(found["peak_to_peak_mv_aVR"][0], np.ptp(there), atol=1e-5)
    np.testing.assert_allclose(found["female"], [1, 0])


def test_rate_uses_the_largest_lead_where_lead_two_is_missing() -> None:
    ecg = _ecgs([80.0])
    ecg[0, :, 1] = MISSING_UV
    found = _features(ecg)
    assert abs(found["rate_per_min"][0] - 80) < 7
    assert np.isnan(found["mean_mv_II"][0])


def test_an_empty_recording_is_unknown_and_filled_with_training_medians() -> None:
    ecg = _ecgs([60.0, 80.0, 100.0])
    ecg[1] = MISSING_UV
    values = trivial_features(ecg, np.array([50, np.nan, 70], np.float32), ["male", "unknown", "female"])
    assert np.isnan(values[1]).all()
    filled = fill_missing(values, training_medians(values))
    assert np.isfinite(filled).all()
    assert filled[1, TRIVIAL_FEATURES.index("age_years")] == 60
    np.testing.assert_array_equal(filled[[0, 2]], values[[0, 2]])


def test_a_feature_that_is_never_known_is_zero() -> None:
    unknown = np.full((3, 2), np.nan, np.float32)
    assert (fill_missing(unknown, training_medians(unknown)) == 0).all()
