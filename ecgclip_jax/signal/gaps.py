"""Missing samples on device: limb leads that others determine, what filters see in a gap, and what stays masked.

Each piece costs nothing on a batch without missing samples, and what looks for the neighbours of a gap nothing where
leads are missing as a whole, the common case (a `lax.cond` on the whole batch).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16

from ecgclip_jax.spec.signal import MISSING_UV, STORED_RATE_HZ

LIMB_FROM_I_II = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32)
"""I, II, III, aVR, aVL, aVF as combinations of I and II (Einthoven, Goldberger)."""


def derive_limb_leads(ecg_uv: Int16[Array, "batch time 12"]) -> Int16[Array, "batch time 12"]:
    """Fill each missing limb-lead sample that at least two other limb leads determine, rounded to the stored 1 µV.

    Least squares over the limb leads present at that instant, which is Einthoven's and Goldberger's relation when
    exactly two are. Samples that are present are never changed.
    """

    def derive(ecg_uv: Array) -> Array:
        limb = ecg_uv[:, :, :6]
        valid = limb != MISSING_UV
        known = jnp.where(valid, limb, 0).astype(jnp.float32)
        weight = valid.astype(jnp.float32)
        a, b = LIMB_FROM_I_II[:, 0], LIMB_FROM_I_II[:, 1]
        aa, ab, bb = ((weight * w).sum(-1) for w in (a * a, a * b, b * b))
        ra, rb = ((known * w).sum(-1) for w in (a, b))
        determinant = aa * bb - ab * ab
        solvable = valid.sum(-1) >= 2  # no two limb leads are parallel
        scale = jnp.where(solvable, 1 / jnp.where(solvable, determinant, 1), 0)
        lead_i, lead_ii = (bb * ra - ab * rb) * scale, (aa * rb - ab * ra) * scale
        derived = jnp.clip(jnp.round(lead_i[..., None] * a + lead_ii[..., None] * b), -32767, 32767)
        completed = jnp.where(~valid & solvable[..., None], derived.astype(jnp.int16), limb)
        return jnp.concatenate([completed, ecg_uv[:, :, 6:]], axis=2)

    any_missing = (ecg_uv[:, :, :6] == MISSING_UV).any()
    completed: Array = jax.lax.cond(any_missing, derive, lambda unchanged: unchanged, ecg_uv)
    return completed


def fill_gaps(
    ecg_uv: Int16[Array, "batch time lead"], policy: Literal["linear", "zero"]
) -> Float[Array, "batch time lead"]:
    """Stored microvolts as float32 with missing samples replaced; a lead with no sample at all becomes zeros.

    "linear" interpolates between the neighbours of a gap and holds the nearest sample at the ends.
    """
    missing = ecg_uv == MISSING_UV

    def zeroed(ecg_uv: Array) -> Array:
        return jnp.where(missing, 0, ecg_uv).astype(jnp.float32)

    if policy == "zero":
        return zeroed(ecg_uv)
    filled: Array = jax.lax.cond(_has_gaps(missing), lambda uv: _interpolate(uv, missing), zeroed, ecg_uv)
    return filled


def _has_gaps(missing: Bool[Array, "batch time lead"]) -> Bool[Array, ""]:
    """Whether a lead of any record is there at some times and not at others."""
    return (missing.any(axis=1) & ~missing.all(axis=1)).any()


def _interpolate(ecg_uv: Int16[Array, "batch time lead"], missing: Bool[Array, "batch time lead"]) -> Array:
    n_samples = ecg_uv.shape[1]
    time = jnp.arange(n_samples, dtype=jnp.int32)[None, :, None]
    value = ecg_uv.astype(jnp.int32) - MISSING_UV  # 1 … 65535
    # Position and value share one int32, so one running maximum carries both and no gather is needed.
    previous = jax.lax.cummax(jnp.where(missing, -1, time * 65536 + value), axis=1)
    following = jax.lax.cummax(jnp.where(missing, -1, (n_samples - 1 - time) * 65536 + value), axis=1, reverse=True)
    has_previous, has_following = previous >= 0, following >= 0
    previous_time, previous_uv = previous // 65536, (previous % 65536 + MISSING_UV).astype(jnp.float32)
    following_time = n_samples - 1 - following // 65536
    following_uv = (following % 65536 + MISSING_UV).astype(jnp.float32)
    span = jnp.maximum(following_time - previous_time, 1)
    fraction = (time - previous_time).astype(jnp.float32) / span.astype(jnp.float32)
    between = previous_uv + fraction * (following_uv - previous_uv)
    held = jnp.where(has_previous, previous_uv, jnp.where(has_following, following_uv, 0.0))
    return jnp.where(missing, jnp.where(has_previous & has_following, between, held), ecg_uv.astype(jnp.float32))


def resampled_validity(
    valid: Bool[Array, "batch time lead"], rate_hz: float, samples_out: int
) -> Bool[Array, "batch samples lead"]:
    """Validity after resampling: true where every stored sample within one output period is there."""
    if rate_hz == STORED_RATE_HZ:
        return valid
    n_samples = valid.shape[1]
    step = STORED_RATE_HZ / rate_hz
    centre = np.arange(samples_out) * step
    first = np.clip(np.floor(centre - step).astype(int) + 1, 0, n_samples)
    last = np.clip(np.ceil(centre + step).astype(int), first, n_samples)

    def shrink(valid: Array) -> Array:
        missing_before = jnp.pad(jnp.cumsum(~valid, axis=1, dtype=jnp.int32), ((0, 0), (1, 0), (0, 0)))
        return missing_before[:, last] == missing_before[:, first]

    def as_it_begins(valid: Array) -> Array:
        return jnp.broadcast_to(valid[:, :1], (valid.shape[0], samples_out, valid.shape[2]))

    resampled: Array = jax.lax.cond(_has_gaps(~valid), shrink, as_it_begins, valid)
    return resampled
