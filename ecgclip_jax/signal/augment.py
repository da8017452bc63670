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
_WANDER_HZ = np.array([0.05, 0.15, 0.3], np.float32)
"""Electrode drift to respiration; each record moves them by up to a half."""
_TIME_MASK_SHARE = (0.1, 0.3)
"""Least and largest span of a time mask, as a share of the record (CLEF)."""
_DRAWS: dict[str, tuple[int, ...]] = {
    "shift": (),
    "scale": (),
    "lead_mask": (12,),
    "wander_size": (),
    "wander_hz": (3,),
    "wander_phase": (3, _N_ELECTRODES),
    "wander_gain": (3, _N_ELECTRODES),
    "mains_size": (),
    "mains_hz": (),
    "mains_phase": (),
    "mains_gain": (_N_ELECTRODES,),
    "noise_sd": (),
    "time_mask": (),
    "time_mask_length": (),
    "time_mask_start": (),
}
"""Uniform draws of a record. All are drawn at once, used or not: a single generator call compiles fast, and switching
one kind on or off leaves the others as they were."""


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

    `spec` amplitudes are the largest drawn, in mV at an electrode: peak for mains and for the sum of wander, standard
    deviation for noise. Mains at or above half of `rate_hz` cannot appear and is left out. Missing samples stay
    missing.
    """
    lead_index = np.array([LEADS_12.index(lead) for lead in leads])
    mixing = LEADS_FROM_ELECTRODES[lead_index].T

    def one(signal: Array, valid: Array, key: Array) -> tuple[Array, Array]:
        draw = _draw(key)
        if spec.max_shift_s > 0:
            signal, valid = _shift(signal, valid, draw["shift"], round(spec.max_shift_s * rate_hz))
        if spec.scale_range > 0:
            signal = signal * (1 + spec.scale_range * (2 * draw["scale"] - 1))
        if spec.wander_mv > 0 or spec.mains_mv > 0:
            signal = signal + _waves(spec, draw, signal.shape[0], rate_hz, mixing)
        if spec.noise_mv > 0:
            noise = jax.random.normal(jax.random.fold_in(key, 1), (signal.shape[0], _N_ELECTRODES))
            signal = signal + draw["noise_sd"] * spec.noise_mv * _product(noise, mixing)
        if spec.lead_mask_probability > 0:
            kept = _kept_leads(valid.any(axis=0), draw["lead_mask"][lead_index], spec.lead_mask_probability)
            valid = valid & kept
        if spec.time_mask_probability > 0:
            valid = valid & _outside_time_mask(draw, signal.shape[0], spec.time_mask_probability)[:, None]
        return jnp.where(valid, signal, 0.0), valid

    return jax.vmap(one)(signal_mv, valid, keys)


def _draw(key: Array) -> dict[str, Array]:
    sizes = [int(np.prod(shape)) for shape in _DRAWS.values()]
    parts = jnp.split(jax.random.uniform(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(_DRAWS.items(), parts, strict=True)}


def _shift(signal: Array, valid: Array, draw: Float[Array, ""], max_shift: int) -> tuple[Array, Array]:
    n_samples = signal.shape[0]
    shift = jnp.floor(draw * (2 * max_shift + 1)).astype(jnp.int32) - max_shift
    source = jnp.arange(n_samples) - shift
    inside = (source >= 0) & (source < n_samples)
    return jnp.roll(signal, shift, axis=0), jnp.roll(valid, shift, axis=0) & inside[:, None]


def _kept_leads(present: Bool[Array, "lead"], draw: Float[Array, "lead"], probability: float) -> Bool[Array, "lead"]:
    """Each present lead is dropped with `probability`; the one with the highest draw always stays."""
    draw = jnp.where(present, draw, -1.0)
    return (draw >= probability) | (jnp.arange(present.shape[0]) == jnp.argmax(draw))


def _outside_time_mask(draw: dict[str, Array], n_samples: int, probability: float) -> Bool[Array, "time"]:
    """All samples but those of one span that lies within the record, drawn with `probability`."""
    least, largest = _TIME_MASK_SHARE
    length = (least + (largest - least) * draw["time_mask_length"]) * n_samples
    since_start = jnp.arange(n_samples) - draw["time_mask_start"] * (n_samples - length)
    return (draw["time_mask"] >= probability) | (since_start < 0) | (since_start >= length)


def _waves(
    spec: AugmentSpec, draw: dict[str, Array], n_samples: int, rate_hz: float, mixing: np.ndarray
) -> Float[Array, "time lead"]:
    """Baseline wander (three sines per electrode) and mains (one phase, a gain per electrode), seen by the leads."""
    mains_hz = jnp.where(draw["mains_hz"] < 0.5, 50.0, 60.0)
    mains_mv = jnp.where(mains_hz < rate_hz / 2, spec.mains_mv * draw["mains_size"], 0.0)
    hz = jnp.append(_WANDER_HZ * (0.5 + draw["wander_hz"]), mains_hz)
    phase = 2 * jnp.pi * jnp.vstack([draw["wander_phase"], jnp.broadcast_to(draw["mains_phase"], _N_ELECTRODES)])
    wander_mv = spec.wander_mv / len(_WANDER_HZ) * draw["wander_size"] * draw["wander_gain"]
    size_mv = jnp.vstack([wander_mv, mains_mv * draw["mains_gain"]])
    angle = 2 * jnp.pi * hz * (jnp.arange(n_samples, dtype=jnp.float32) / rate_hz)[:, None]
    # sin(a + p) = sin a cos p + cos a sin p: the electrodes share eight waves instead of having 36 of their own.
    waves = jnp.hstack([jnp.sin(angle), jnp.cos(angle)])
    at_electrodes = jnp.vstack([size_mv * jnp.cos(phase), size_mv * jnp.sin(phase)])
    return _product(waves, _product(at_electrodes, mixing))


def _product(a: Array, b: Array | np.ndarray) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
