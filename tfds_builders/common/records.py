"""A stored window and what its source says about it, put together in the schema's terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple

from ecgclip_jax.signal.storage import StoredECG
from ecgclip_jax.spec.signal import STORED_RATE_HZ, STORED_SAMPLES
from ecgclip_jax.text.reports import CleaningStyle, clean_report, guess_language, report_flags
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.schema import Record, Sex


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinical:
    """Risk factors at the recording and what followed; None where the source does not say. Fields as in the schema."""

    smoker: float | None = None
    diabetes: float | None = None
    systolic_mmhg: float | None = None
    total_cholesterol_mmol_l: float | None = None
    hdl_cholesterol_mmol_l: float | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    follow_up_years: float | None = None
    event_observed: float | None = None


_CLINICAL_NAMES: Final = tuple(field.name for field in fields(Clinical))
_clinical_values = attrgetter(*_CLINICAL_NAMES)
_UNKNOWN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A mark on a recording: a wave's boundary, a beat, a change of rhythm."""

    code: str
    """As WFDB writes it; a change of rhythm is its note, `(AFIB`."""
    time_s: float
    """From the recording's first sample."""
    lead: str = ""
    """Empty where it holds for all leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a source says about a recording, in the schema's terms."""

    age_years: float | None = None
    age_censored: bool = False
    sex: Sex = "unknown"
    clinical: Clinical = Clinical()
    report: str | None = None
    """None where the cohort has no reports; an empty one is a report without a word."""
    labels: tuple[tuple[str, float], ...] = ()
    """Codes with likelihood in percent, in the source's order."""
    measurements: tuple[tuple[str, float], ...] = ()
    """What the source measured, by name with unit; what is missing there is missing here."""
    site: str = ""
    device: str = ""
    mains_hz: float | None = None
    band_hz: tuple[float, float] | None = None
    """Lower and upper limit, where the row states them; otherwise those of the recording count."""
    reasons: tuple[str, ...] = ()
    """What the audit should say about it."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """Where a recording belongs. An empty text means that the source does not say."""

    record_id: str
    patient_id: str
    split: str


class _Report(NamedTuple):
    """What the text of a report tells."""

    clean: str
    language: str
    flags: tuple[str, ...]


@lru_cache(maxsize=2**14)
def _report(raw: str | None, cleaning: CleaningStyle) -> _Report:
    """Kept for reports seen before: carts write the same few sentences again and again."""
    if raw is None:
        return _Report("", guess_language(""), ())
    return _Report(clean_report(raw, cleaning) if raw else "", guess_language(raw), report_flags(raw))


def make_record(
    stored: StoredECG,
    key: RowKey,
    described: Described,
    label_vocabulary: str,
    source_row: str,
    report_cleaning: CleaningStyle = "plain",
    marks: Sequence[tuple[Annotation, int]] = (),
) -> Record:
    """The record of one window; `source_row` is the source's own row as JSON, `marks` are those of `by_window`."""
    report = _report(described.report, report_cleaning)
    band_low_hz, band_high_hz = described.band_hz or (stored.band_low_hz, stored.band_high_hz)
    return Record(
        ecg_uv=stored.ecg_uv,
        record_id=key.record_id,
        window_index=stored.window_index,
        n_windows=stored.n_windows,
        patient_id=key.patient_id,
        patient_id_known=bool(key.patient_id),
        age_years=_number(described.age_years),
        age_censored=described.age_censored,
        sex=described.sex,
        **dict(zip(_CLINICAL_NAMES, map(_number, _clinical_values(described.clinical)), strict=True)),
        report_raw=described.report or "",
        report_clean=report.clean,
        report_language=report.language,
        label_vocabulary=label_vocabulary,
        label_codes=tuple(code for code, _ in described.labels),
        label_values=tuple(value for _, value in described.labels),
        measurement_names=tuple(name for name, _ in described.measurements),
        measurement_values=tuple(value for _, value in described.measurements),
        annotation_codes=tuple(mark.code for mark, _ in marks),
        annotation_samples=tuple(sample for _, sample in marks),
        annotation_leads=tuple(mark.lead for mark, _ in marks),
        site=described.site,
        device=described.device,
        rate_hz_source=stored.rate_hz_source,
        resolution_uv=stored.resolution_uv,
        band_low_hz=_number(band_low_hz),
        band_high_hz=_number(band_high_hz),
        mains_hz=_number(described.mains_hz if stored.mains_hz is None else stored.mains_hz),
        lead_present=stored.lead_present,
        n_saturated=stored.n_saturated,
        quality_flags=stored.quality_flags,
        waveform_sha256=stored.waveform_sha256,
        source_row=source_row,
    )


def audit_reasons(
    key: RowKey, described: Described, windows: Iterable[StoredECG], report_cleaning: CleaningStyle = "plain"
) -> tuple[str, ...]:
    """Everything to know about a kept recording, each reason once; `report_cleaning` is that of its records."""
    patient = () if key.patient_id else (BuildReason.patient_unknown.value,)
    flags = (flag for window in windows for flag in window.quality_flags)
    report = _report(described.report, report_cleaning)
    return tuple(dict.fromkeys((*described.reasons, *patient, *report.flags, *flags)))


def by_window(annotations: Iterable[Annotation]) -> dict[int, list[tuple[Annotation, int]]]:
    """The annotations of a recording by the index of their window, each with its sample there."""
    windows: dict[int, list[tuple[Annotation, int]]] = {}
    for mark in annotations:
        index, sample = divmod(round(mark.time_s * STORED_RATE_HZ), STORED_SAMPLES)
        windows.setdefault(index, []).append((mark, sample))
    return windows


def _number(value: float | None) -> float:
    return _UNKNOWN if value is None else value
