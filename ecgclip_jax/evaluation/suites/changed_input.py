"""A cohort's ECGs as a protocol shows them: fewer leads, a part of the time, stretched, or at a lower rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from jaxtyping import Int16
from scipy.signal import resample_poly

from ecgclip_jax.data.sources import CohortSplit, WaveformReader
from ecgclip_jax.evaluation.protocols.lead_subsets import only_leads
from ecgclip_jax.spec.signal import MISSING_UV, STORED_RATE_HZ, STORED_SAMPLES
from ecgclip_jax.spec.suites import InputChange


class _Changed(WaveformReader):
    """Reads what another reader reads, and changes it."""

    def __init__(self, own: WaveformReader, change: InputChange) -> None:
        self._own, self._change = own, change

    def __len__(self) -> int:
        return len(self._own)

    def read(self, rows: Sequence[int]) -> Int16[np.ndarray, "rows time lead"]:
        """See `WaveformReader.read`."""
        return change_ecg(self._own.read(rows), self._change)


def changed(split: CohortSplit, change: InputChange) -> CohortSplit:
    """The split under another version's name, so that nothing made of it is taken for the unchanged one's."""
    if not change.name:
        return split
    version = f"{split.version}+{change.name.replace(', ', '+').replace(' ', '_')}"
    return replace(split, version=version, waveforms=_Changed(split.waveforms, change))


def change_ecg(
    ecg_uv: Int16[np.ndarray, "records 5000 12"], change: InputChange
) -> Int16[np.ndarray, "records 5000 12"]:
    """A copy with the change made: stretched by linear interpolation, sampled at the rate, cut off, with less leads."""
    made = ecg_uv.copy()
    if change.stretched_s < STORED_SAMPLES / STORED_RATE_HZ:
        made = _stretched(made, change.stretched_s * STORED_RATE_HZ / STORED_SAMPLES)
    if change.rate_hz < STORED_RATE_HZ:
        made = _at_rate(made, change.rate_hz)
    beyond = round(change.kept_s * STORED_RATE_HZ)
    made[:, beyond:] = np.where(made[:, beyond:] == MISSING_UV, np.int16(MISSING_UV), np.int16(0))
    return only_leads(made, change.leads) if change.leads else made


def _at_rate(ecg_uv: Int16[np.ndarray, "records 5000 12"], rate_hz: float) -> Int16[np.ndarray, "records 5000 12"]:
    """Sampled down, behind the low-pass that this takes, and up again; a gap is 0 µV to the filter and stays a gap."""
    missing, ratio = ecg_uv == MISSING_UV, Fraction(rate_hz / STORED_RATE_HZ).limit_denominator(STORED_SAMPLES)
    low = resample_poly(
        np.where(missing, 0, ecg_uv).astype(np.float32), ratio.numerator, ratio.denominator, axis=1, padtype="line"
    )
    back = resample_poly(low, ratio.denominator, ratio.numerator, axis=1, padtype="line")[:, :STORED_SAMPLES]
    return np.where(missing, MISSING_UV, np.clip(np.rint(back), -32767, 32767)).astype(np.int16)


def _stretched(ecg_uv: Int16[np.ndarray, "records 5000 12"], share: float) -> Int16[np.ndarray, "records 5000 12"]:
    """Sample i is what stood at `share` * i; between a missing sample and another it is missing."""
    at = np.arange(STORED_SAMPLES) * share
    before = np.floor(at).astype(int)
    after, weight = np.minimum(before + 1, STORED_SAMPLES - 1), (at - before)[:, None]
    first, second = ecg_uv[:, before].astype(np.float32), ecg_uv[:, after].astype(np.float32)
    missing = (ecg_uv[:, before] == MISSING_UV) | (ecg_uv[:, after] == MISSING_UV)
    mixed = np.rint((1 - weight) * first + weight * second)
    return np.where(missing, MISSING_UV, mixed).astype(np.int16)
