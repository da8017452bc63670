"""A model's input on device against scipy and numpy, and everything that is not a complete clean window."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import signal as scipy_signal

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.signal.gaps import derive_limb_leads, fill_gaps
from ecgclip_jax.signal.preprocessing import build_operators, lead_moments, preprocess
from ecgclip_jax.signal.running_median import running_median
from ecgclip_jax.spec.signal import (
    LEADS_8,
    LEADS_12,
    MISSING_UV,
    Bandpass,
    MainsNotch,
    MedianBaseline,
    SignalSpec,
    merl,
)

BAND_100HZ = SignalSpec(
    name="band", rate_hz=100, samples=1024, leads=LEADS_8, bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40)
)
NOTCH = SignalSpec(name="notch", rate_hz=500, samples=5000, leads=("II", "V1"), notch=MainsNotch(harmonics=False))
LIMB = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])


def make_ecgs(n: int, seed: int = 0) -> np.ndarray:
    """Spiky, drifting int16 ECG-like windows that obey Einthoven's law up to rounding."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(5000) / 500
    ecgs = np.empty((n, 5000, 12))
    for row in ecgs:
        beats = np.zeros(5000)
        beats[rng.integers(0, 400) :: rng.integers(300, 600)] = 1
        source = np.convolve(beats, np.hanning(40), mode="same")[:, None] * rng.normal(size=8)
        source += 0.3 * np.sin(2 * np.pi * 0.2 * seconds + rng.uniform(0, 6))[:, None] * rng.normal(size=8)
        source += 0.02 * rng.normal(size=(5000, 8))
        row[:, :6] = source[:, :2] @ LIMB.T
        row[:, 6:] = source[:, 2:]
    return np.round(1000 * ecgs).clip(-32767, 32767).astype(np.int16)


def run(spec: SignalSpec, ecg_uv: np.ndarray, mains_hz: list[float] | None = None) -> EcgInput:
    """Preprocess a batch, filled up to six records by its first, so that each spec compiles once."""
    n = len(ecg_uv)
    rows = np.r_[np.arange(n), np.zeros(6 - n, int)]
    extras = {} if mains_hz is None else {"mains_hz": jnp.asarray(mains_hz, jnp.float32)[rows]}
    present = {name: ~jnp.isnan(value) for name, value in extras.items()}
    ecg = preprocess(spec, build_operators(spec), jnp.asarray(ecg_uv[rows]), extras, present)
    return jax.tree.map(lambda array: np.asarray(array[:n]), ecg)


def band_100hz_by_scipy(ecg_uv: np.ndarray) -> np.ndarray:
    leads = [LEADS_12.index(lead) for lead in LEADS_8]
    b, a = scipy_signal.butter(3, [0.5, 40], btype="bandpass", fs=500)
    filtered = scipy_signal.filtfilt(b, a, ecg_uv[:, :, leads] / 1000, axis=1)
    return scipy_signal.resample_poly(filtered, 1, 5, axis=1)


def test_bandpass_and_resampling_equal_scipy_and_are_padded_in_the_centre() -> None:
    ecg_uv = make_ecgs(6)
    ecg = run(BAND_100HZ, ecg_uv)
    assert ecg.signal.shape == (6, 1024, 8)
    assert np.abs(ecg.signal[:, 12:1012] - band_100hz_by_scipy(ecg_uv)).max() <= 2e-5
    assert not np.any(ecg.signal[:, :12])
    assert not np.any(ecg.signal[:, 1012:])
    assert ecg.lead_present.all()
    assert np.array_equal(np.flatnonzero(ecg.sample_valid[0]), np.arange(12, 1012))


def test_a_step_at_the_very_end_is_filtered_as_scipy_does() -> None:
    ecg_uv = np.zeros((2, 5000, 12), np.int16)
    ecg_uv[0, 4990:] = 2000
    ecg_uv[1, :7] = -30000
    ecg = run(BAND_100HZ, ecg_uv)
    assert np.abs(ecg.signal[:, 12:1012] - band_100hz_by_scipy(ecg_uv)).max() <= 1e-4


def test_each_record_gets_the_notch_of_its_own_mains() -> None:
    ecg_uv = make_ecgs(5)
    ecg = run(NOTCH, ecg_uv, [50, 60, np.nan, 16.7, 50])
    for row, mains_hz in enumerate([50, 60, None, None, 50]):
        expected = ecg_uv[row][:, [1, 6]] / 1000
        if mains_hz is not None:
            b, a = scipy_signal.iirnotch(mains_hz, 30, fs=500)
            expected = scipy_signal.filtfilt(b, a, expected, axis=0, padtype="constant")
        assert np.abs(ecg.signal[row] - expected).max() <= 2e-5, mains_hz


def test_a_batch_of_one_mains_frequency_equals_its_records_in_a_mixed_batch() -> None:
    ecg_uv = make_ecgs(3)
    mixed = run(NOTCH, ecg_uv, [60, 50, 60]).signal
    uniform = run(NOTCH, ecg_uv, [60, 60, 60]).signal
    np.testing.assert_allclose(mixed[::2], uniform[::2], atol=1e-6)
    assert np.abs(mixed[1] - uniform[1]).max() > 1e-3


def test_unknown_mains_follows_the_spec() -> None:
    spec = NOTCH.model_copy(update={"notch": MainsNotch(harmonics=False, unknown_mains_hz=60)})
    ecg_uv = make_ecgs(2)
    nowhere = run(spec, ecg_uv).signal
    np.testing.assert_allclose(nowhere, run(NOTCH, ecg_uv, [60, 60]).signal, atol=1e-6)


def test_a_sharded_batch_gives_the_same_and_exchanges_nothing_but_scalars() -> None:
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    rows, copies = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    ecg_uv = make_ecgs(6)
    ecg_uv[1, 40:90] = MISSING_UV
    mains_hz = [50, 60, 50, np.nan, 60, 60]
    extras = {"mains_hz": jnp.asarray(mains_hz, jnp.float32)}
    arguments = jax.device_put((jnp.asarray(ecg_uv), extras, {"mains_hz": ~jnp.isnan(extras["mains_hz"])}), rows)
    compiled = preprocess.lower(NOTCH, jax.device_put(build_operators(NOTCH), copies), *arguments).compile()
    sharded = compiled(jax.device_put(build_operators(NOTCH), copies), *arguments)
    np.testing.assert_allclose(sharded.signal, run(NOTCH, ecg_uv, mains_hz).signal, atol=1e-6)
    assert not re.search(r"\b(all-gather|all-to-all|collective-permute)\(", compiled.as_text())


def test_gap_is_interpolated_for_the_filter_and_masked_after() -> None:
    ecg_uv = make_ecgs(2)
    filled = ecg_uv.copy()
    ecg_uv[0, 2000:2101, 6] = MISSING_UV
    filled[0, 1999:2102, 6] = np.round(np.linspace(ecg_uv[0, 1999, 6], ecg_uv[0, 2101, 6], 103))
    ecg = run(BAND_100HZ, ecg_uv)
    expected = band_100hz_by_scipy(filled)
    lead_v1 = LEADS_8.index("V1")
    gap = slice(12 + 400, 12 + 421)
    assert not np.any(ecg.signal[0, gap, lead_v1])
    expected[0, 400:421, lead_v1] = 0
    assert np.abs(ecg.signal[:, 12:1012] - expected).max() <= 6e-4  # the test's own filling is rounded to 1 µV
    assert ecg.sample_valid[0, 12:1012].all(), "seven other leads are there"
    assert ecg.lead_present.all()


def test_a_missing_lead_is_the_same_beside_records_with_gaps_and_without() -> None:
    ecg_uv = make_ecgs(2)
    ecg_uv[0, :, 7] = MISSING_UV
    without = run(BAND_100HZ, ecg_uv)
    ecg_uv[1, 2000:2101, 6] = MISSING_UV
    beside = run(BAND_100HZ, ecg_uv)
    for alone, together in zip(jax.tree.leaves(without), jax.tree.leaves(beside), strict=True):
        np.testing.assert_array_equal(alone[0], together[0])
    lead_v2 = LEADS_8.index("V2")
    assert not without.lead_present[0, lead_v2]
    assert not np.any(without.signal[0, :, lead_v2])
    expected = band_100hz_by_scipy(ecg_uv[:1])
    others = [lead for lead in range(8) if lead != lead_v2]
    assert np.abs(without.signal[0, 12:1012, others].T - expected[0][:, others]).max() <= 1e-4


def test_short_record_is_invalid_where_it_is_missing_in_every_lead() -> None:
    ecg_uv = make_ecgs(1)
    ecg_uv[:, 3000:] = MISSING_UV
    ecg = run(BAND_100HZ, ecg_uv)
    valid = np.flatnonzero(ecg.sample_valid[0]) - 12
    assert valid[0] == 0
    assert valid[-1] == 599, "sample 600 stands at the first missing one"
    assert np.isfinite(ecg.signal).all()


def test_nothing_missing_or_everything_missing_is_finite() -> None:
    ecg_uv = make_ecgs(3)
    ecg_uv[0] = MISSING_UV
    ecg_uv[1, 1:] = MISSING_UV
    ecg_uv[2] = 7
    for spec in (
        BAND_100HZ,
        merl(),
        merl(normalisation="zscore_record", epsilon=0, missing_leads="mask", gap_fill="zero"),
    ):
        ecg = run(spec, ecg_uv)
        assert np.isfinite(ecg.signal).all(), spec.normalisation
        assert not ecg.lead_present[0].any()
        assert not ecg.sample_valid[0].any()
        assert ecg.lead_present[2].all()
        assert np.abs(ecg.signal[2]).max() <= 1e-4, "a flat line stays flat, whatever the normalisation"


def test_missing_limb_leads_are_derived_and_chest_leads_are_masked() -> None:
    ecg_uv = make_ecgs(3)
    damaged = ecg_uv.copy()
    damaged[0, :, 2:6] = MISSING_UV
    damaged[1, :, :2] = MISSING_UV
    damaged[2, :, 1:6] = MISSING_UV
    damaged[:, :, 7] = MISSING_UV
    derived = np.asarray(derive_limb_leads(jnp.asarray(damaged)))
    assert np.abs(derived[:2, :, :6].astype(int) - ecg_uv[:2, :, :6]).max() <= 2  # both sides rounded to 1 µV
    assert (derived[2, :, 1:6] == MISSING_UV).all(), "one limb lead determines nothing"
    np.testing.assert_array_equal(derived[damaged != MISSING_UV], damaged[damaged != MISSING_UV])
    present = np.asarray(run(merl(), damaged).lead_present)
    assert present[0].sum() == present[1].sum() == 11
    assert present[2].sum() == 6
    masked = run(merl(missing_leads="mask"), damaged)
    assert masked.lead_present[0].sum() == 7
    assert not np.any(np.asarray(masked.signal)[:, :, 7])


def test_gaps_are_filled_like_numpy_interpolation() -> None:
    rng = np.random.default_rng(3)
    ecg_uv = rng.integers(-32767, 32768, (4, 300, 3)).astype(np.int16)
    ecg_uv[rng.random(ecg_uv.shape) < 0.6] = MISSING_UV
    ecg_uv[0, :40] = ecg_uv[1, 250:] = MISSING_UV
    filled = np.asarray(fill_gaps(jnp.asarray(ecg_uv), "linear"))
    time = np.arange(300)
    for row in range(4):
        for lead in range(3):
            line = ecg_uv[row, :, lead]
            there = line != MISSING_UV
            np.testing.assert_allclose(
                filled[row, :, lead], np.interp(time, time[there], line[there]), rtol=2e-6, atol=0.02
            )
    assert (np.asarray(fill_gaps(jnp.asarray(ecg_uv), "zero"))[ecg_uv == MISSING_UV] == 0).all()


@pytest.mark.parametrize("normalisation", ["minmax_record", "zscore_lead", "zscore_record"])
def test_statistics_use_valid_samples_only(normalisation: str) -> None:
    ecg_uv = make_ecgs(3)
    ecg_uv[0, 100:400, 7] = MISSING_UV
    ecg_uv[1, :, 8] = MISSING_UV
    signal_mv = np.where(ecg_uv == MISSING_UV, np.nan, ecg_uv / 1000)
    axes = 1 if normalisation == "zscore_lead" else (1, 2)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning) if axes == 1 else np.errstate():
        if normalisation == "minmax_record":
            low, high = np.nanmin(signal_mv, axes, keepdims=True), np.nanmax(signal_mv, axes, keepdims=True)
            expected = (signal_mv - low) / (high - low + 1e-8)
        else:
            expected = (signal_mv - np.nanmean(signal_mv, axes, keepdims=True)) / np.nanstd(
                signal_mv, axes, keepdims=True
            )
    ecg = run(merl(normalisation=normalisation), ecg_uv)
    np.testing.assert_allclose(ecg.signal, np.nan_to_num(expected), atol=2e-5)


def test_z_score_over_a_data_set_takes_what_its_records_measure() -> None:
    ecg_uv = make_ecgs(6)
    ecg_uv[0, 100:400, 7] = MISSING_UV
    ecg_uv[1, :, 8] = MISSING_UV
    spec = merl(normalisation="zscore_dataset", unit="uV", gap_fill="zero")
    moments = lead_moments(spec, build_operators(spec), jnp.asarray(ecg_uv), {}, {})
    count, means, deviations = (np.asarray(each) for each in moments)
    signal_uv = np.where(ecg_uv == MISSING_UV, np.nan, ecg_uv.astype(np.float64))
    np.testing.assert_array_equal(count, np.isfinite(signal_uv).sum(axis=1))
    there = count > 0
    each = np.moveaxis(signal_uv, 1, 2)[there]
    np.testing.assert_allclose(means[there], np.nanmean(each, axis=1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(deviations[there], np.nanvar(each, axis=1) * count[there], rtol=1e-4)
    mean, sd = np.nanmean(signal_uv, axis=(0, 1)), np.nanstd(signal_uv, axis=(0, 1))
    with pytest.raises(ValueError, match=r"signal\.lead_scale: normalisation 'zscore_dataset' needs mean"):
        run(spec, ecg_uv)
    scaled = spec.replace({"lead_scale": tuple(zip(mean.tolist(), sd.tolist(), strict=True))})
    np.testing.assert_allclose(run(scaled, ecg_uv).signal, np.nan_to_num((signal_uv - mean) / sd), atol=2e-5)


def test_leads_are_chosen_by_name_units_and_crop_follow_the_spec() -> None:
    ecg_uv = make_ecgs(2)
    spec = SignalSpec(name="crop", rate_hz=500, samples=4001, leads=("V6", "aVL", "I"), unit="uV", placement="centre")
    np.testing.assert_allclose(run(spec, ecg_uv).signal, ecg_uv[:, 499:4500, [11, 4, 0]], rtol=1e-6)
    left = spec.model_copy(update={"placement": "left"})
    np.testing.assert_allclose(run(left, ecg_uv).signal, ecg_uv[:, :4001, [11, 4, 0]], rtol=1e-6)


@pytest.mark.parametrize("window", [5, 201])
def test_running_median_equals_scipy_medfilt(window: int) -> None:
    rng = np.random.default_rng(1)
    signal = np.round(rng.normal(size=(2, 700, 2)), 1).astype(np.float32)  # rounding makes ties
    ours = np.asarray(running_median(jnp.asarray(signal), window))
    for row in range(2):
        for lead in range(2):
            np.testing.assert_array_equal(ours[row, :, lead], scipy_signal.medfilt(signal[row, :, lead], window))


def test_baseline_stands_where_filter_order_says() -> None:
    ecg_uv = make_ecgs(1)
    spec = SignalSpec(
        name="baseline_first",
        rate_hz=100,
        samples=1000,
        leads=("II",),
        baseline=MedianBaseline(window_s=0.2),
        filter_order=("baseline", "bandpass", "notch"),
    )
    lead = ecg_uv[0, :, 1] / 1000
    expected = scipy_signal.resample_poly(lead - scipy_signal.medfilt(lead, 101), 1, 5)
    assert np.abs(run(spec, ecg_uv).signal[0, :, 0] - expected).max() <= 2e-5


def test_operators_are_arguments_of_a_jitted_caller_and_batches_do_not_mix() -> None:
    ecg_uv = make_ecgs(4)
    ecg_uv[2, 500:700] = MISSING_UV
    operators = build_operators(BAND_100HZ)
    assert build_operators(BAND_100HZ.model_copy(update={"name": "other", "leads": ("I",)})) is operators
    step = jax.jit(lambda operators, ecg_uv: preprocess(BAND_100HZ, operators, ecg_uv, {}, {}).signal)
    together = step(operators, jnp.asarray(ecg_uv))
    np.testing.assert_allclose(together, run(BAND_100HZ, ecg_uv).signal, atol=1e-6)
    moved = step(operators, jnp.asarray(ecg_uv[::-1]))
    np.testing.assert_allclose(together[::-1], moved, atol=1e-6)
