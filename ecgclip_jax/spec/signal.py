"""What a model's input is: the serialisable description that is saved with the weights.

A `SignalSpec` says everything that happens between stored int16 microvolts (500 Hz, 12 leads, 10 s, see
`ecgclip_jax.signal.storage`) and the first layer of an encoder. `ecgclip_jax.signal.preprocessing` applies it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ecgclip_jax.spec.base import Spec

LeadName = Literal["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]

LEADS_12: tuple[LeadName, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEADS_8: tuple[LeadName, ...] = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The eight independent leads: the other four are linear in I and II (Einthoven, Goldberger)."""

STORED_RATE_HZ = 500
STORED_SAMPLES = 5000
STORED_LEADS = LEADS_12
MISSING_UV = -32768
"""int16 sentinel of a missing sample; present values saturate at ±32767."""


class Bandpass(Spec):
    """Zero-phase Butterworth band-pass (forward and backward, `scipy.signal.filtfilt` semantics)."""

    order: int = Field(3, ge=1, le=8)
    low_hz: float = Field(0.5, gt=0)
    high_hz: float = Field(100.0, gt=0)
    padding: Literal["odd", "gust"] = "odd"
    """How the ends are treated before filtering: odd extension, or Gustafsson's initial conditions."""

    @model_validator(mode="after")
    def _ordered(self) -> Bandpass:
        if self.low_hz >= self.high_hz:
            raise ValueError(f"bandpass: low_hz {self.low_hz} must be below high_hz {self.high_hz}")
        return self


class MainsNotch(Spec):
    """Zero-phase notch at the record's own mains frequency (a fact of the record, not of the model)."""

    q: float = Field(30.0, gt=0)
    harmonics: bool = True
    """Also at every multiple up to the Nyquist frequency."""
    padding: Literal["constant", "odd"] = "constant"
    """How the ends are extended before filtering (`scipy.signal.filtfilt`'s padtype)."""
    unknown_mains_hz: Literal[50, 60] | None = None
    """Used where the record does not say; None leaves such a record unfiltered."""


class MedianBaseline(Spec):
    """Subtracts a running median (ECGFounder's baseline removal: `scipy.signal.medfilt`, zeros beyond the ends)."""

    window_s: float = Field(0.4, gt=0)


class SignalSpec(Spec):
    """A model's input, from stored microvolts to the first layer.

    Order of work: missing samples are filled (`gap_fill`) → filters in `filter_order` at 500 Hz → polyphase
    resampling to `rate_hz` → leads by name → unit → normalisation over valid samples → padding or crop to
    `samples` → gaps, padding and missing leads are zeroed and masked.
    """

    name: str
    rate_hz: float = Field(gt=0, le=500)
    samples: int = Field(gt=0)
    """Length given to the encoder, padding included."""
    leads: tuple[LeadName, ...] = Field(min_length=1, max_length=12)
    bandpass: Bandpass | None = None
    notch: MainsNotch | None = None
    baseline: MedianBaseline | None = None
    filter_order: tuple[Literal["bandpass", "notch", "baseline"], ...] = ("bandpass", "notch", "baseline")
    unit: Literal["mV", "uV"] = "mV"
    normalisation: Literal["none", "minmax_record", "zscore_lead", "zscore_record", "zscore_dataset"] = "none"
    lead_scale: tuple[tuple[float, float], ...] | None = None
    """Of `zscore_dataset`: mean and standard deviation of each of `leads` over the data set, in `unit`. None: an
    evaluation suite measures them on the records that its probes learn from; nothing else can."""
    epsilon: float = Field(1e-8, ge=0)
    placement: Literal["centre", "left"] = "centre"
    """Where a recording shorter than `samples` stands in its padding; a longer one is cropped the same way."""
    gap_fill: Literal["linear", "zero"] = "linear"
    """What stands in for missing samples while filters run; they are masked afterwards."""
    missing_leads: Literal["mask", "derive"] = "derive"
    """Missing limb leads: derived where two others determine them, or only masked."""

    @model_validator(mode="after")
    def _consistent(self) -> SignalSpec:
        if len(set(self.leads)) != len(self.leads):
            raise ValueError(f"leads: each lead once, got {self.leads}")
        if self.bandpass and self.bandpass.high_hz >= STORED_RATE_HZ / 2:
            raise ValueError(
                f"bandpass.high_hz {self.bandpass.high_hz} must be below {STORED_RATE_HZ / 2} Hz (Nyquist)"
            )
        if len(set(self.filter_order)) != len(self.filter_order):
            raise ValueError(f"filter_order: each filter once, got {self.filter_order}")
        missing = {n for n in ("bandpass", "notch", "baseline") if getattr(self, n)} - set(self.filter_order)
        if missing:
            raise ValueError(f"filter_order {self.filter_order} leaves out {sorted(missing)}")
        if self.lead_scale is not None:
            self._require_scale(self.lead_scale)
        return self

    def _require_scale(self, scale: tuple[tuple[float, float], ...]) -> None:
        if self.normalisation != "zscore_dataset":
            raise ValueError(f"lead_scale belongs to normalisation 'zscore_dataset', found '{self.normalisation}'")
        if len(scale) != len(self.leads) or not all(math.isfinite(mean) and 0 < sd < math.inf for mean, sd in scale):
            raise ValueError(
                f"lead_scale: expected a finite mean and a standard deviation above 0 for each of {len(self.leads)} "
                f"leads, got {scale}"
            )

    @property
    def units_per_mv(self) -> float:
        """How many of `unit` make a millivolt."""
        return 1000.0 if self.unit == "uV" else 1.0

    @property
    def signal_samples(self) -> int:
        """Samples that ten stored seconds fill at `rate_hz`, before padding or crop."""
        return round(STORED_SAMPLES * self.rate_hz / STORED_RATE_HZ)


def merl(**changes: object) -> SignalSpec:
    """MERL's input (released code): 12 leads, 500 Hz, per-record min-max to [0, 1], no filter."""
    return SignalSpec.model_validate(
        dict(name="merl", rate_hz=500, samples=5000, leads=LEADS_12, normalisation="minmax_record", epsilon=1e-8)
        | changes
    )


def ecgclip(**changes: object) -> SignalSpec:
    """ECGCLIP's input (released prognosis code): 8 leads, 0.5-100 Hz, mains notch, 400 Hz, 4000 → 4096, millivolts."""
    return SignalSpec.model_validate(
        dict(
            name="ecgclip",
            rate_hz=400,
            samples=4096,
            leads=LEADS_8,
            bandpass=Bandpass(order=3, low_hz=0.5, high_hz=100.0, padding="gust"),
            notch=MainsNotch(q=30.0, harmonics=True),
        )
        | changes
    )


def clef(lead: LeadName = "I", **changes: object) -> SignalSpec:
    """CLEF's input (released code): one lead, order-5 0.67-40 Hz, z-score; the lead is an argument."""
    return SignalSpec.model_validate(
        dict(
            name=f"clef_{lead}",
            rate_hz=500,
            samples=5000,
            leads=(lead,),
            bandpass=Bandpass(order=5, low_hz=0.67, high_hz=40.0),
            normalisation="zscore_lead",
            epsilon=1e-8,
        )
        | changes
    )


def ecgfounder(**changes: object) -> SignalSpec:
    """ECGFounder's input as its dataset code has it: notch 50 Hz, order-4 0.67-40 Hz, median baseline, z-score."""
    return SignalSpec.model_validate(
        dict(
            name="ecgfounder",
            rate_hz=500,
            samples=5000,
            leads=LEADS_12,
            notch=MainsNotch(q=30.0, harmonics=False, padding="odd", unknown_mains_hz=50),
            bandpass=Bandpass(order=4, low_hz=0.67, high_hz=40.0),
            baseline=MedianBaseline(window_s=0.4),
            filter_order=("notch", "bandpass", "baseline"),
            normalisation="zscore_record",
        )
        | changes
    )


PRESETS = {"merl": merl, "ecgclip": ecgclip, "clef": clef, "ecgfounder": ecgfounder}


class AugmentSpec(Spec):
    """Augmentations on device, each drawn per record and seeded by step; zero switches one off. Amplitudes in mV.

    The list of kinds is our choice; MERL and ECGCLIP use none.
    """

    lead_mask_probability: float = Field(0.0, ge=0, le=1)
    """Chance of each lead to be masked (at least one lead always stays)."""
    max_shift_s: float = Field(0.0, ge=0)
    """Largest shift in time; what is shifted in counts as missing."""
    scale_range: float = Field(0.0, ge=0, lt=1)
    """Amplitude factor drawn from [1 - r, 1 + r]."""
    wander_mv: float = Field(0.0, ge=0)
    mains_mv: float = Field(0.0, ge=0)
    noise_mv: float = Field(0.0, ge=0)
    time_mask_probability: float = Field(0.0, ge=0, le=1)
    """Chance of one span of 10-30 % of the record to count as missing on all leads (CLEF: 0.2, the span zeroed)."""

    @property
    def active(self) -> bool:
        """Whether anything is switched on."""
        return any(float(v) > 0 for v in self.model_dump().values())


class ViewSpec(Spec):
    """What of an ECG the encoder sees: all leads of the input, or a single lead, as CLEF trains it."""

    single_lead: bool = False
    """The encoder takes one lead; training draws it from `signal.leads` for each record and step."""
    same_lead_probability: float = Field(0.8, ge=0, le=1)
    """Chance that further views of a record show the same lead as its first one, and are not drawn anew (CLEF)."""
    inference_lead: LeadName = "I"
    """The lead that a single-lead model is used with."""
