"""Augmentation: drawn per record from its key, in millivolts, consistent between leads, never inventing samples."""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.signal.augment import LEADS_FROM_ELECTRODES, augment
from ecgclip_jax.signal.preprocessing import build_operators, preprocess, training_views
from ecgclip_jax.spec.signal import LEADS_8, LEADS_12, MISSING_UV, AugmentSpec, SignalSpec, ViewSpec, merl

N, SAMPLES, RATE_HZ = 48, 500, 250.0
ALL_KINDS = AugmentSpec(
    lead_mask_probability=0.4, max_shift_s=0.4, scale_range=0.2, wander_mv=0.3, mains_mv=0.1, noise_mv=0.05
)


@lru_cache
def compiled(spec: AugmentSpec, rate_hz: float):
    return jax.jit(partial(augment, spec, rate_hz=rate_hz, leads=LEADS_12))


def run(spec: AugmentSpec, signal: np.ndarray, valid: np.ndarray, keys: jax.Array, rate_hz: float = RATE_HZ):
    step = compiled(spec, rate_hz)
    return jax.tree.map(np.asarray, step(jnp.asarray(signal, jnp.float32), jnp.asarray(valid), keys))


def keys_of(n: int = N, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


def zeros() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((N, SAMPLES, 12), np.float32), np.ones((N, SAMPLES, 12), bool)


def test_a_record_depends_on_its_key_and_not_on_its_place() -> None:
    rng = np.random.default_rng(0)
    signal, valid = rng.normal(size=(N, SAMPLES, 12)), rng.random((N, SAMPLES, 12)) > 0.1
    keys = keys_of()
    first, first_valid = run(ALL_KINDS, signal, valid, keys)
    order = rng.permutation(N)
    moved, moved_valid = run(ALL_KINDS, signal[order], valid[order], keys[order])
    np.testing.assert_array_equal(moved_valid, first_valid[order])
    np.testing.assert_allclose(moved, first[order], atol=1e-6)
    other, _ = run(ALL_KINDS, signal, valid, keys_of(seed=1))
    assert (np.abs(other - first).max(axis=(1, 2)) > 1e-3).all()


def test_missing_samples_stay_missing_and_are_zero() -> None:
    signal, valid = zeros()
    valid[:, 200:300, 3] = False
    valid[0] = False
    changed, still_valid = run(ALL_KINDS, signal, valid, keys_of())
    assert not still_valid[0].any()
    lead_kept = still_valid.any(axis=1)
    lost = still_valid[:, :, 2].sum(axis=1) - still_valid[:, :, 3].sum(axis=1)
    both = lead_kept[:, 2] & lead_kept[:, 3]
    assert both.any()
    assert (lost[both] == 100).all(), "the gap moves with its signal and stays a gap"
    assert not changed[~still_valid].any()
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_lead_masking_drops_leads_at_the_rate_asked_and_keeps_one(probability: float) -> None:
    signal, valid = zeros()
    valid[:, :, 9:] = False
    _, kept = run(AugmentSpec(lead_mask_probability=probability), signal, valid, keys_of())
    leads = kept.any(axis=1)
    assert not leads[:, 9:].any()
    if probability == 1.0:
        assert (leads.sum(axis=1) == 1).all()
        assert len(set(leads.argmax(axis=1))) >= 6, "any lead may be the one that stays"
    else:
        assert 0.62 <= leads[:, :9].mean() <= 0.78


def test_shift_moves_the_signal_and_marks_what_came_in() -> None:
    signal, valid = zeros()
    signal[:] = np.arange(1, SAMPLES + 1)[None, :, None]
    shifted, still_valid = run(AugmentSpec(max_shift_s=0.4), signal, valid, keys_of())
    shifts = set()
    for line, mask in zip(shifted[:, :, 0], still_valid[:, :, 0], strict=True):
        first = np.flatnonzero(mask)[0]
        shift = int(first - (line[first] - 1))
        shifts.add(shift)
        expected = np.arange(1, SAMPLES + 1) - shift
        inside = (expected >= 1) & (expected <= SAMPLES)
        np.testing.assert_array_equal(mask, inside)
        np.testing.assert_array_equal(line, np.where(inside, expected, 0))
    assert -100 <= min(shifts) < -30
    assert 30 < max(shifts) <= 100


def test_scale_is_one_factor_per_record_within_range() -> None:
    signal, valid = zeros()
    signal[:] = 1.0
    scaled, _ = run(AugmentSpec(scale_range=0.2), signal, valid, keys_of())
    assert (scaled == scaled[:, :1, :1]).all()
    assert 0.8 <= scaled.min() < 0.87
    assert 1.13 < scaled.max() <= 1.2


def test_disturbances_obey_einthoven_and_their_amplitudes() -> None:
    signal, valid = zeros()
    for spec, limit_mv in ((AugmentSpec(wander_mv=0.3), 0.6), (AugmentSpec(mains_mv=0.1), 0.2)):
        added, _ = run(spec, signal, valid, keys_of())
        lead_i, lead_ii, lead_iii, avr = (added[:, :, k] for k in range(4))
        np.testing.assert_allclose(lead_iii, lead_ii - lead_i, atol=1e-6)
        np.testing.assert_allclose(avr, -(lead_i + lead_ii) / 2, atol=1e-6)
        assert limit_mv / 10 < np.abs(added).max() <= limit_mv
    noise, _ = run(AugmentSpec(noise_mv=0.05), signal, valid, keys_of())
    sd_mv = noise[:, :, 6:].std(axis=(1, 2))
    assert sd_mv.max() <= 0.05 * np.sqrt(4 / 3) * 1.1  # an electrode and a third of three others
    assert sd_mv.min() < 0.02


def test_mains_lies_at_50_or_60_hz_and_needs_a_rate_that_can_hold_it() -> None:
    signal, valid = zeros()
    added, _ = run(AugmentSpec(mains_mv=0.1), signal, valid, keys_of())
    spectrum = np.abs(np.fft.rfft(added[:, :, 6], axis=1))
    peaks_hz = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)[spectrum.argmax(axis=1)]
    assert set(peaks_hz) == {50.0, 60.0}
    silent, _ = run(AugmentSpec(mains_mv=0.1), signal, valid, keys_of(), rate_hz=100.0)
    assert not silent.any()


def test_electrode_matrix_by_hand() -> None:
    potentials = dict(RA=-0.2, LA=0.3, LL=0.9)
    wilson = sum(potentials.values()) / 3
    chest = np.linspace(-1, 1, 6)
    leads = LEADS_FROM_ELECTRODES @ np.array([*potentials.values(), *chest])
    expected = [0.5, 1.1, 0.6, -0.2 - 0.6, 0.3 - 0.35, 0.9 - 0.05, *(chest - wilson)]
    np.testing.assert_allclose(leads, expected, atol=1e-6)


def test_views_are_augmented_in_millivolts_before_normalisation() -> None:
    rng = np.random.default_rng(0)
    ecg_uv = jnp.asarray(rng.integers(-900, 900, (4, 5000, 12)), jnp.int16).at[1, :, 5].set(MISSING_UV)
    spec = SignalSpec(name="raw", rate_hz=500, samples=5000, leads=LEADS_8, unit="uV")
    operators, keys = build_operators(spec), keys_of(4)
    plain = preprocess(spec, operators, ecg_uv, {}, {})
    noisy = training_views(spec, AugmentSpec(mains_mv=0.1), ViewSpec(), 1, operators, ecg_uv, {}, {}, keys)[0]
    added_uv = np.abs(np.asarray(noisy.signal - plain.signal))
    assert 10 < added_uv.max() <= 200.01
    inactive = training_views(spec, AugmentSpec(), ViewSpec(), 1, operators, ecg_uv, {}, {}, keys)[0]
    np.testing.assert_array_equal(inactive.signal, plain.signal)
    scaled = training_views(merl(), AugmentSpec(scale_range=0.3), ViewSpec(), 1, operators, ecg_uv, {}, {}, keys)[0]
    unscaled = preprocess(merl(), operators, ecg_uv, {}, {})
    np.testing.assert_allclose(scaled.signal, unscaled.signal, atol=1e-5)  # min-max comes after, so it undoes a factor


def test_single_lead_views_show_the_first_lead_again_with_the_stated_chance() -> None:
    n = 400
    ecg_uv = np.broadcast_to(100 * np.arange(12, dtype=np.int16), (n, 5000, 12)).copy()
    ecg_uv[:, :, 3] = MISSING_UV
    spec = SignalSpec(name="raw", rate_hz=50, samples=500, leads=LEADS_12, unit="uV", missing_leads="mask")
    view_spec = ViewSpec(single_lead=True, same_lead_probability=0.8)
    arguments = (build_operators(spec), jnp.asarray(ecg_uv), {}, {}, keys_of(n))
    views = training_views(spec, AugmentSpec(), view_spec, 2, *arguments)
    assert all(view.signal.shape == (n, 500, 1) and view.lead_present.all() for view in views)
    first, second = (np.rint(np.asarray(view.signal[:, 250, 0]) / 100).astype(int) for view in views)
    assert set(first) == set(range(12)) - {3}, "any lead that is present, never a missing one"
    # The second is the first with p = 0.8, else drawn anew among eleven: 0.8 + 0.2 / 11.
    assert np.mean(first == second) == pytest.approx(0.8 + 0.2 / 11, abs=0.06)
    alone = preprocess(spec, *arguments[:4], lead="V2")
    np.testing.assert_allclose(alone.signal[:, 100:400], 700, rtol=1e-3)  # the ends feel the padding


def test_views_of_a_record_differ_and_do_not_depend_on_the_batch() -> None:
    ecg_uv = jnp.asarray(np.random.default_rng(1).integers(-900, 900, (4, 5000, 12)), jnp.int16)
    spec, keys = merl(), keys_of(4)
    operators, noisy = build_operators(spec), AugmentSpec(noise_mv=0.1)
    together = training_views(spec, noisy, ViewSpec(), 2, operators, ecg_uv, {}, {}, keys)
    assert float(jnp.abs(together[0].signal - together[1].signal).max()) > 0
    alone = training_views(spec, noisy, ViewSpec(), 2, operators, ecg_uv[2:], {}, {}, keys[2:])
    for whole, part in zip(together, alone, strict=True):
        np.testing.assert_allclose(whole.signal[2:], part.signal, atol=1e-6)


def test_a_time_mask_is_one_span_of_a_tenth_to_three_tenths_of_the_record_on_all_leads() -> None:
    signal, valid = zeros()
    _, masked = run(AugmentSpec(time_mask_probability=1.0), signal + 1, valid, keys_of())
    assert (masked == masked[:, :, :1]).all()
    edges = np.abs(np.diff(np.pad((~masked[:, :, 0]).astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
    assert (edges == 2).all(), "one span"
    share = (~masked[:, :, 0]).mean(axis=1)
    assert 0.1 - 1 / SAMPLES <= share.min() < 0.15 < 0.25 < share.max() <= 0.3 + 1 / SAMPLES
    starts = masked[:, :, 0].argmin(axis=1)
    assert starts.min() < 0.1 * SAMPLES
    assert starts.max() > 0.6 * SAMPLES


def test_time_masks_come_at_the_rate_asked_and_leave_other_draws_as_they_were() -> None:
    signal, valid = np.random.default_rng(0).normal(size=(N, SAMPLES, 12)), np.ones((N, SAMPLES, 12), bool)
    scaled, _ = run(AugmentSpec(scale_range=0.2), signal, valid, keys_of())
    both, masked = run(AugmentSpec(scale_range=0.2, time_mask_probability=0.3), signal, valid, keys_of())
    np.testing.assert_array_equal(both[masked], scaled[masked])
    assert not both[~masked].any()
    assert 0.1 < (~masked).any(axis=(1, 2)).mean() < 0.5
