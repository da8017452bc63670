"""What was read from a file, before anything was decided about it: `ECGRecord`, and the error a reader raises.

Reading and storing are two steps. A record keeps the source's rate, length, lead names and gaps; only
`ecgclip_jax.signal.storage.to_stored` turns it into the form a dataset holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from jaxtyping import Float32

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.signal import LEADS_12

Sex = Literal["female", "male"]


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
class ECGRecord:
    """An ECG as read: any rate, any named leads, any length; float32 microvolts, NaN where a sample is missing."""

    record_id: str
    signal_uv: Float32[np.ndarray, "time lead"]
    leads: tuple[str, ...]
    """One name per column: canonical (`ecgclip_jax.spec.signal.LEADS_12`) where known, as read otherwise."""
    rate_hz: float
    facts: SourceFacts

    def __post_init__(self) -> None:
        if len(self.leads) != self.signal_uv.shape[1]:
            raise ValueError(f"{len(self.leads)} lead names for {self.signal_uv.shape[1]} signal columns")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.signal_uv.shape[0] / self.rate_hz)

    @property
    def extra_leads(self) -> tuple[str, ...]:
        """Leads outside the standard twelve (Frank leads, Holter leads …), which are not stored."""
        return tuple(lead for lead in self.leads if lead not in LEADS_12)
