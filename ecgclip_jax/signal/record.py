"""What was read from a file, before anything was decided about it: `ECGRecord`, and the error a reader raises.

Reading and storing are two steps. A record keeps the source's rate, length, lead names and gaps; only
`ecgclip_jax.signal.storage.to_stored` turns it into the form a dataset holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np
from jaxtyping import Float32, Int16

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV

Sex = Literal["female", "male"]
_EXACT_IN_FLOAT32: Final = 2**22
_LARGEST_UV: Final = 32767


class ReasonCode(StrEnum):
    """Why a file did not become an ECG; the word that stands in a build's audit."""

    missing_file = "missing_file"
    empty = "empty"
    truncated = "truncated"
    header_malformed = "header_malformed"
    header_lies = "header_lies"
    unit_unknown = "unit_unknown"
    rate_unusable = "rate_unusable"
    no_known_lead = "no_known_lead"
    duplicate_lead = "duplicate_lead"
    path_outside_source = "path_outside_source"
    unsupported_format = "unsupported_format"
    unreadable = "unreadable"


class ECGReadError(UserError):
    """A file that cannot become an ECG: `.reason` for the audit, a sentence for the reader."""

    def __init__(self, reason: ReasonCode, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"

    @classmethod
    def because(cls, reason: ReasonCode, where: object, *, expected: str, found: str, remedy: str) -> ECGReadError:
        """The error in the project's form: what was expected, what was found, what to do."""
        return cls(reason, f"{where}: expected {expected}, found {found}. {remedy}")


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the source says about itself; None where it says nothing, never a guess."""

    format: str
    """Container and sample format, as `wfdb16`, `wfdb16+24`, `wfdb212`."""
    resolution_uv: float
    """Microvolts per unit of the converter: the coarsest of the leads."""
    band_low_hz: float | None = None
    band_high_hz: float | None = None
    mains_hz: float | None = None
    age_years: float | None = None
    sex: Sex | None = None
    comments: tuple[str, ...] = ()
    """Free lines of the header, verbatim without the comment sign."""
    gain_assumed: tuple[str, ...] = ()
    """Leads whose header gives no gain (or 0): the format's default of 200 per unit was used."""
    checksum_mismatch: tuple[str, ...] = ()
    """Leads whose samples do not add up to the header's checksum."""
    notes: tuple[str, ...] = ()
    """Deviations from the format that were tolerated, and signals that were left out."""


@dataclass(frozen=True, slots=True)
class ConverterUnits:
    """Samples as a converter gave them, which is how most files hold them; microvolts are made when asked for."""

    raw: Int16[np.ndarray, "time lead"]
    """`MISSING_UV`, which is WFDB's sign too (https://wfdb.io/spec/signal.html), where a sample is missing."""
    baseline: tuple[int, ...]
    """Converter units at zero microvolts, one per lead."""
    resolution_uv: tuple[float, ...]
    """Microvolts per converter unit, one per lead."""

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and leads."""
        return self.raw.shape[0], self.raw.shape[1]

    def of_leads(self, columns: Sequence[int]) -> ConverterUnits:
        """The chosen columns, in the order given."""
        return ConverterUnits(
            np.ascontiguousarray(self.raw[:, columns]),
            tuple([self.baseline[column] for column in columns]),
            tuple([self.resolution_uv[column] for column in columns]),
        )

    def microvolts(self) -> Float32[np.ndarray, "time lead"]:
        """(raw - baseline) × microvolts per unit; missing samples are NaN."""
        # Baselines beyond float32's exact integers would cost microvolts: rare enough to pay for float64.
        exact = max(map(abs, self.baseline)) <= _EXACT_IN_FLOAT32
        signal = self.raw.astype(np.float32 if exact else np.float64)
        # Most cohorts have one gain for all leads, and a scalar is several times faster than a row of twelve.
        if any(self.baseline):
            signal -= self.baseline[0] if len(set(self.baseline)) == 1 else np.array(self.baseline, signal.dtype)
        same = len(set(self.resolution_uv)) == 1
        signal *= self.resolution_uv[0] if same else np.array(self.resolution_uv, signal.dtype)
        if self.raw.min() == MISSING_UV:
            signal[self.raw == MISSING_UV] = np.nan
        return signal.astype(np.float32, copy=False)

    def whole_microvolts(self, columns: Sequence[int]) -> Int16[np.ndarray, "column time"] | None:
        """The chosen columns without the detour over floating point; None unless the outcome is the same for certain.

        For certain it is with a baseline of zero, one whole number of microvolts per unit, and nothing beyond int16.
        """
        step_uv = self.resolution_uv[0]
        is_whole = step_uv.is_integer() and step_uv <= _LARGEST_UV
        if any(self.baseline) or not is_whole or len(set(self.resolution_uv)) > 1:
            return None
        whole: Int16[np.ndarray, "column time"] = self.raw.T[list(columns)]
        lowest, highest = whole.min(initial=0), whole.max(initial=0)
        missing = whole == MISSING_UV if lowest == MISSING_UV else None
        if missing is not None:
            lowest = whole.min(initial=0, where=~missing)
        if max(-int(lowest), int(highest)) * step_uv > _LARGEST_UV:
            return None
        whole *= np.int16(step_uv)
        if missing is not None:
            whole[missing] = MISSING_UV
        return whole


@dataclass(frozen=True, slots=True)
class ECGRecord:
    """An ECG as read: any rate, any named leads, any length."""

    record_id: str
    samples: Float32[np.ndarray, "time lead"] | ConverterUnits
    """Microvolts, NaN where a sample is missing; or what the file holds, which saves most builds that detour."""
    leads: tuple[str, ...]
    """One name per column: canonical (`ecgclip_jax.spec.signal.LEADS_12`) where known, as read otherwise."""
    rate_hz: float
    facts: SourceFacts

    def __post_init__(self) -> None:
        if len(self.leads) != self.samples.shape[1]:
            raise ValueError(f"{len(self.leads)} lead names for {self.samples.shape[1]} signal columns")

    @property
    def signal_uv(self) -> Float32[np.ndarray, "time lead"]:
        """Microvolts, NaN where a sample is missing."""
        return self.samples.microvolts() if isinstance(self.samples, ConverterUnits) else self.samples

    @property
    def n_samples(self) -> int:
        """Length in samples."""
        return int(self.samples.shape[0])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.rate_hz

    @property
    def extra_leads(self) -> tuple[str, ...]:
        """Leads outside the standard twelve (Frank leads, Holter leads …), which are not stored."""
        return tuple(lead for lead in self.leads if lead not in LEADS_12)
