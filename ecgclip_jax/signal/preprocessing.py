"""From stored microvolts to a model's input, on device, in one pure function.

    operators = build_operators(spec)                       # once per process, on the host
    ecg_input = preprocess(spec, operators, ecg_uv, extras, extras_present)      # inside or outside jit

`operators` (the filters of the spec, a pytree of 0 to 25 MB) is an ordinary argument: pass it into a jitted step beside
the parameters, replicated, so that nothing large is baked into the compiled program. `spec` is static. A training
step calls `training_views` instead: the filters run once, then each view is augmented by itself.

Order of work: limb leads that others determine → leads by name → gaps filled → filters and resampling (mV) →
[augmentation, in mV] → [a single lead] → unit and normalisation over valid samples → gaps zeroed → padding or crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int16

from ecgclip_jax.contracts import EcgInput, RowKeys
from ecgclip_jax.signal.augment import augment
from ecgclip_jax.signal.filters import MAINS_HZ
from ecgclip_jax.signal.gaps import derive_limb_leads, fill_gaps, resampled_validity
from ecgclip_jax.signal.operators import SignalOperators, apply_operator, build_operators
from ecgclip_jax.signal.running_median import running_median
from ecgclip_jax.spec.signal import (
    LEADS_12,
    MISSING_UV,
    STORED_RATE_HZ,
    AugmentSpec,
    LeadName,
    SignalSpec,
    ViewSpec,
)

__all__ = ["SignalOperators", "build_operators", "lead_moments", "preprocess", "training_views"]

FLAT_MV = 1e-4
"""A spread below this (a tenth of the stored 1 µV step) is a flat line: normalisation gives zeros, not noise."""
_LEAD_STREAM = 2
"""Beside the streams of `signal.augment`."""


@dataclass(frozen=True)
class _Filtered:
    signal_mv: Float[Array, "batch time lead"]
    valid: Bool[Array, "batch time lead"]


@partial(jax.jit, static_argnames=("spec", "lead"))
def preprocess(
    spec: SignalSpec,
    operators: SignalOperators,
    ecg_uv: Int16[Array, "batch 5000 12"],
    extras: Mapping[str, Array],
    extras_present: Mapping[str, Array],
    lead: LeadName | None = None,
) -> EcgInput:
    """Turn stored ECGs (int16 µV, 500 Hz, 12 leads, -32768 = missing) into the input that `spec` describes.

    `operators` come from `build_operators(spec)`. The notch uses `extras["mains_hz"]` (float32 [B]) where
    `extras_present["mains_hz"]` (bool [B]); a record without it follows `spec.notch.unknown_mains_hz`. Other extras are
    ignored. `lead` leaves one of `spec.leads`, for a single-lead model. The result is finite for any input: missing
    leads and gaps are zero and masked. `sample_valid` is true where at least one of the leads has a real sample. An
    output sample counts as missing when a stored sample within one output period of it is missing; a filter's ringing
    beyond that is not masked, since the gap was filled first.
    """
    filtered = _filter(spec, operators, ecg_uv, extras, extras_present, augmented=False)
    if lead is not None:
        filtered = _one_lead(filtered, jnp.full(ecg_uv.shape[0], spec.leads.index(lead)))
    return _normalise_and_place(spec, filtered)


@partial(jax.jit, static_argnames=("spec",))
def lead_moments(
    spec: SignalSpec,
    operators: SignalOperators,
    ecg_uv: Int16[Array, "batch 5000 12"],
    extras: Mapping[str, Array],
    extras_present: Mapping[str, Array],
) -> tuple[Int[Array, "batch lead"], Float[Array, "batch lead"], Float[Array, "batch lead"]]:
    """Of each record's leads after the filters, in `spec.unit`: number, mean and squared deviations of valid samples.

    What `zscore_dataset` is measured from; arguments as for `preprocess`.
    """
    filtered = _filter(spec, operators, ecg_uv, extras, extras_present, augmented=False)
    valid, signal = filtered.valid, filtered.signal_mv * spec.units_per_mv
    count = valid.sum(axis=1)
    mean = jnp.where(valid, signal, 0.0).sum(axis=1) / jnp.maximum(count, 1)
    return count, mean, jnp.where(valid, jnp.square(signal - mean[:, None]), 0.0).sum(axis=1)


@partial(jax.jit, static_argnames=("spec", "augment_spec", "view_spec", "n_views"))
def training_views(
    spec: SignalSpec,
    augment_spec: AugmentSpec,
    view_spec: ViewSpec,
    n_views: int,
    operators: SignalOperators,
    ecg_uv: Int16[Array, "batch 5000 12"],
    extras: Mapping[str, Array],
    extras_present: Mapping[str, Array],
    keys: RowKeys,
) -> tuple[EcgInput, ...]:
    """`n_views` inputs of each record: `preprocess`, with augmentation after the filters (which would undo it), in mV.

    Each record draws from its own key, each view by itself. A single-lead view shows one of the record's present
    leads: the first view any of them, a further one the same with `view_spec.same_lead_probability`, else any.
    """
    filtered = _filter(spec, operators, ecg_uv, extras, extras_present, augmented=augment_spec.active)
    views, first_lead = [], None
    for number in range(n_views):
        view, view_keys = filtered, _folded(keys, number)
        if augment_spec.active:
            view = _Filtered(
                *augment(augment_spec, view.signal_mv, view.valid, view_keys, rate_hz=spec.rate_hz, leads=spec.leads)
            )
        if view_spec.single_lead:
            lead = _draw_lead(view_keys, view.valid, first_lead, view_spec.same_lead_probability)
            first_lead = lead if first_lead is None else first_lead
            view = _one_lead(view, lead)
        views.append(_normalise_and_place(spec, view))
    return tuple(views)


def _folded(keys: RowKeys, stream: int) -> RowKeys:
    folded: RowKeys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)
    return folded


def _draw_lead(
    keys: RowKeys, valid: Bool[Array, "batch time lead"], first: Int[Array, "batch"] | None, same_probability: float
) -> Int[Array, "batch"]:
    """One of each record's leads that hold a sample (any, where none does)."""
    n_leads = valid.shape[2]
    draws = jax.vmap(lambda key: jax.random.uniform(key, (n_leads + 1,)))(_folded(keys, _LEAD_STREAM))
    lead = jnp.argmax(jnp.where(valid.any(axis=1), draws[:, :n_leads], draws[:, :n_leads] - 1), axis=1)
    return lead if first is None else jnp.where(draws[:, n_leads] < same_probability, first, lead)


def _one_lead(filtered: _Filtered, lead: Int[Array, "batch"]) -> _Filtered:
    signal_mv, valid = (
        jnp.take_along_axis(values, lead[:, None, None], axis=2) for values in (filtered.signal_mv, filtered.valid)
    )
    return _Filtered(signal_mv, valid)


def _filter(
    spec: SignalSpec,
    operators: SignalOperators,
    ecg_uv: Int16[Array, "batch time 12"],
    extras: Mapping[str, Array],
    extras_present: Mapping[str, Array],
    *,
    augmented: bool,
) -> _Filtered:
    variant = _mains_variant(spec, extras, extras_present, ecg_uv.shape[0])
    if spec.missing_leads == "derive":
        ecg_uv = derive_limb_leads(ecg_uv)
    if spec.leads != LEADS_12:
        ecg_uv = ecg_uv[:, :, np.array([LEADS_12.index(lead) for lead in spec.leads])]
    valid = ecg_uv != MISSING_UV
    filters = (operators.before_baseline, spec.baseline, operators.after_baseline)
    # What stands in a gap matters to filters and augmentations alone: it is zeroed in the end.
    seen = augmented or any(each is not None for each in filters)
    filled_uv = fill_gaps(ecg_uv, spec.gap_fill) if seen else jnp.where(valid, ecg_uv, 0).astype(jnp.float32)
    signal_mv = filled_uv * jnp.float32(1e-3)
    resampled = spec.signal_samples
    if operators.before_baseline is not None:
        samples_out = signal_mv.shape[1] if spec.baseline else resampled
        signal_mv = apply_operator(operators.before_baseline, signal_mv, variant, samples_out)
    if spec.baseline is not None:
        window = int(spec.baseline.window_s * STORED_RATE_HZ) | 1
        signal_mv = signal_mv - running_median(signal_mv, window)
    if operators.after_baseline is not None:
        signal_mv = apply_operator(operators.after_baseline, signal_mv, variant, resampled)
    return _Filtered(signal_mv, resampled_validity(valid, spec.rate_hz, resampled))


def _mains_variant(
    spec: SignalSpec, extras: Mapping[str, Array], extras_present: Mapping[str, Array], batch: int
) -> Int[Array, "batch"]:
    """Which of `MAINS_HZ` each record's notch removes; only 50 and 60 Hz (± 1 Hz) count as known."""
    if spec.notch is None:
        return jnp.zeros(batch, jnp.int32)
    default = MAINS_HZ.index(spec.notch.unknown_mains_hz)
    if "mains_hz" not in extras:
        return jnp.full(batch, default, jnp.int32)
    mains_hz = extras["mains_hz"]
    known = extras_present["mains_hz"]
    is_50, is_60 = (known & (jnp.abs(mains_hz - hz) <= 1) for hz in (50, 60))
    return jnp.select([is_50, is_60], [MAINS_HZ.index(50), MAINS_HZ.index(60)], default).astype(jnp.int32)


def _normalise_and_place(spec: SignalSpec, filtered: _Filtered) -> EcgInput:
    valid = filtered.valid
    signal, flat = filtered.signal_mv * spec.units_per_mv, FLAT_MV * spec.units_per_mv
    if spec.normalisation == "minmax_record":
        signal = _minmax(signal, valid, spec.epsilon, flat)
    elif spec.normalisation == "zscore_dataset":
        signal = _scaled_by_data_set(signal, spec)
    elif spec.normalisation != "none":
        axes = (1,) if spec.normalisation == "zscore_lead" else (1, 2)
        signal = _zscore(signal, valid, axes, spec.epsilon, flat)
    signal = jnp.where(valid, signal, 0.0)
    return EcgInput(
        signal=_place(signal, spec),
        lead_present=valid.any(axis=1),
        sample_valid=_place(valid.any(axis=2), spec),
    )


def _scaled_by_data_set(signal: Array, spec: SignalSpec) -> Array:
    """(x - mean) / (SD + ε), both of the lead over a data set."""
    if spec.lead_scale is None:
        raise ValueError(
            "signal.lead_scale: normalisation 'zscore_dataset' needs mean and standard deviation of each of "
            f"{', '.join(spec.leads)} over the data set, found none"
        )
    scale = np.asarray(spec.lead_scale, np.float32)
    return (signal - scale[:, 0]) / (scale[:, 1] + np.float32(spec.epsilon))


def _minmax(signal: Array, valid: Array, epsilon: float, flat: float) -> Array:
    """(x - min) / (max - min + ε) over the valid samples of all leads (MERL); flat records give 0."""
    low = jnp.min(signal, axis=(1, 2), keepdims=True, where=valid, initial=jnp.inf)
    high = jnp.max(signal, axis=(1, 2), keepdims=True, where=valid, initial=-jnp.inf)
    spread = high - low
    varies = spread > flat
    return jnp.where(varies, (signal - low) / jnp.where(varies, spread + epsilon, 1.0), 0.0)


def _zscore(signal: Array, valid: Array, axes: tuple[int, ...], epsilon: float, flat: float) -> Array:
    """(x - mean) / (SD + ε) over the valid samples (population SD, as numpy's); flat leads or records give 0."""
    count = jnp.maximum(valid.sum(axis=axes, keepdims=True), 1)
    mean = jnp.where(valid, signal, 0.0).sum(axis=axes, keepdims=True) / count
    centred = jnp.where(valid, signal - mean, 0.0)
    sd = jnp.sqrt(jnp.square(centred).sum(axis=axes, keepdims=True) / count)
    varies = sd > flat
    return jnp.where(varies, centred / jnp.where(varies, sd + epsilon, 1.0), 0.0)


def _place(values: Array, spec: SignalSpec) -> Array:
    """Pad with zeros (False) or crop along axis 1 to `spec.samples`; an odd rest goes to the right."""
    extra = spec.samples - values.shape[1]
    before = abs(extra) // 2 if spec.placement == "centre" else 0
    if extra < 0:
        return values[:, before : before + spec.samples]
    widths = [(0, 0), (before, extra - before)] + [(0, 0)] * (values.ndim - 2)
    return jnp.pad(values, widths)
