"""Augmentation on device, in millivolts, between a model's filters and its normalisation.

Every choice of a record is drawn from that record's own key, so it does not depend on the batch it stands in, on the
mesh or on the number of processes. Disturbances arise at the electrodes and reach the leads through their definitions:
an augmented ECG still obeys Einthoven's law, as a real noisy one does. The kinds and their ranges are our choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ecgclip_jax.contracts import RowKeys
from ecgclip_jax.spec.signal import LEADS_12, AugmentSpec, LeadName

_LIMB = np.array([[-1, 1, 0], [-1, 0, 1], [0, -1, 1], [1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]])
LEADS_FROM_ELECTRODES = np.block([[_LIMB, np.zeros((6, 6))], [np.full((6, 3), -1 / 3), np.eye(6)]]).astype(np.float32)
"""The 12 leads from the potentials of RA, LA, LL, V1 … V6; Wilson's terminal is the mean of the first three."""
_N_ELECTRODES = 9
_WANDER_HZ = (0.05, 0.15, 0.3)
"""Electrode drift to respiration; each record moves them by up to a half."""


def augment(
    spec: AugmentSpec,
    signal_mv: Float[Array, "batch time lead"],
    valid: Bool[Array, "batch time lead"],
    keys: RowKeys,
    *,
    rate_hz: float,
    leads: tuple[LeadName, ...],
) -> tuple[Float[Array, "batch time lead"], Bool[Array, "batch time lead"]]:
    """Shift, scale, disturb and mask each record by its key; returns the signal and what of it is still valid.

    `spec` amplitudes are the largest drawn, in mV at an electrode: peak for mains and the sum of wander, standard
    deviation for noise. Mains at or above half of `rate_hz` is left out (it cannot appear). Missing samples stay
    missing.
    """
    mixing = jnp.asarray(LEADS_FROM_ELECTRODES[[LEADS_12.index(lead) for lead in leads]])

    def one(signal: Array, valid: Array, key: Array) -> tuple[Array, Array]:
        shift_key, scale_key, noise_key, mask_key = jax.random.split(key, 4)
        if spec.max_shift_s > 0:
            signal, valid = _shift(signal, valid, shift_key, round(spec.max_shift_s * rate_hz))
        if spec.scale_range > 0:
            signal = signal * jax.random.uniform(
                scale_key, (), minval=1 - spec.scale_range, maxval=1 + spec.scale_range
            )
        if spec.wander_mv or spec.mains_mv or spec.noise_mv:
            electrodes_mv = _disturbance(spec, noise_key, signal.shape[0], rate_hz)
            signal = signal + jnp.matmul(electrodes_mv, mixing.T, precision=jax.lax.Precision.HIGHEST)
        if spec.lead_mask_probability > 0:
            valid = valid & _kept_leads(valid.any(axis=0), mask_key, spec.lead_mask_probability)
        return jnp.where(valid, signal, 0.0), valid

    return jax.vmap(one)(signal_mv, valid, keys)


def _shift(signal: Array, valid: Array, key: Array, max_shift: int) -> tuple[Array, Array]:
    n_samples = signal.shape[0]
    shift = jax.random.randint(key, (), -max_shift, max_shift + 1)
    source = jnp.arange(n_samples) - shift
    inside = (source >= 0) & (source < n_samples)
    return jnp.roll(signal, shift, axis=0), jnp.roll(valid, shift, axis=0) & inside[:, None]


def _kept_leads(present: Bool[Array, "lead"], key: Array, probability: float) -> Bool[Array, "lead"]:
    """Each present lead is dropped with `probability`; the one with the highest draw always stays."""
    draw = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    return (draw >= probability) | (jnp.arange(present.shape[0]) == jnp.argmax(draw))


def _disturbance(spec: AugmentSpec, key: Array, n_samples: int, rate_hz: float) -> Float[Array, "time electrode"]:
    wander_key, mains_key, noise_key = jax.random.split(key, 3)
    seconds = jnp.arange(n_samples, dtype=jnp.float32) / rate_hz
    total = jnp.zeros((n_samples, _N_ELECTRODES), jnp.float32)
    if spec.wander_mv > 0:
        total += _wander(wander_key, seconds, spec.wander_mv)
    if spec.mains_mv > 0:
        total += _mains(mains_key, seconds, spec.mains_mv, rate_hz)
    if spec.noise_mv > 0:
        sd_key, sample_key = jax.random.split(noise_key)
        sd_mv = jax.random.uniform(sd_key, (), maxval=spec.noise_mv)
        total += sd_mv * jax.random.normal(sample_key, (n_samples, _N_ELECTRODES))
    return total


def _wander(key: Array, seconds: Float[Array, "time"], peak_mv: float) -> Float[Array, "time electrode"]:
    size_key, rate_key, phase_key, gain_key = jax.random.split(key, 4)
    n_waves = len(_WANDER_HZ)
    size_mv = jax.random.uniform(size_key, (), maxval=peak_mv / n_waves)
    hz = jnp.array(_WANDER_HZ) * jax.random.uniform(rate_key, (n_waves,), minval=0.5, maxval=1.5)
    phase = jax.random.uniform(phase_key, (n_waves, _N_ELECTRODES), maxval=2 * jnp.pi)
    gain = jax.random.uniform(gain_key, (n_waves, _N_ELECTRODES))
    angle = 2 * jnp.pi * hz[:, None, None] * seconds[None, :, None] + phase[:, None, :]
    return size_mv * (gain[:, None, :] * jnp.sin(angle)).sum(axis=0)


def _mains(key: Array, seconds: Float[Array, "time"], peak_mv: float, rate_hz: float) -> Float[Array, "time electrode"]:
    size_key, hz_key, phase_key, gain_key = jax.random.split(key, 4)
    hz = jnp.where(jax.random.bernoulli(hz_key), 60.0, 50.0)
    size_mv = jnp.where(hz < rate_hz / 2, jax.random.uniform(size_key, (), maxval=peak_mv), 0.0)
    phase = jax.random.uniform(phase_key, (), maxval=2 * jnp.pi)
    gain = jax.random.uniform(gain_key, (_N_ELECTRODES,))
    return size_mv * jnp.sin(2 * jnp.pi * hz * seconds + phase)[:, None] * gain
