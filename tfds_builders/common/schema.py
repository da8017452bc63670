"""The record every prepared cohort holds, declared once: TFDS features, Arrow columns and docs derive from `Record`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache, lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int16

from ecgclip_jax.spec.signal import LEADS_12, STORED_LEADS, STORED_SAMPLES
from tfds_builders.common.example_wire import (
    Entry,
    Feature,
    blob_feature,
    bytes_feature,
    entry,
    example,
    float_feature,
    int64_feature,
    map_key,
    protobuf_order,
)

SCHEMA_VERSION = "1.2.0"
"""1.1.0 added risk factors and follow-up, 1.2.0 measurements and annotations; the reading side takes what an older
cohort has not as unknown."""
Sex = Literal["female", "male", "unknown"]
LEAD_COUNT = len(LEADS_12)


_MakeEntry = Callable[[Any], Entry]
"""How a value is written as the entry of one field."""
_REMEMBERED = 2048
"""Entries per field: most fields of most cohorts say one of a few things, which then are put together once."""
_SHORT_TEXT = 256
"""Characters: longer texts are reports and rows of sources, hardly ever the same and large to keep."""


def _made_anew(encode: Callable[[Any], Feature]) -> Callable[[bytes], _MakeEntry]:
    return lambda key: lambda value: entry(key, encode(value))


def _remembered(encode: Callable[[Any], Feature]) -> Callable[[bytes], _MakeEntry]:
    """For values that are the same where they are equal: 0 and -0 as floats are not."""
    return lambda key: lru_cache(_REMEMBERED)(_made_anew(encode)(key))


def _text(key: bytes) -> _MakeEntry:
    anew = _made_anew(lambda value: bytes_feature((value.encode(),)))(key)
    short = lru_cache(_REMEMBERED)(anew)
    return lambda value: short(value) if len(value) <= _SHORT_TEXT else anew(value)


def _number(key: bytes) -> _MakeEntry:
    unknown = entry(key, float_feature((float("nan"),)))  # most numbers of most cohorts
    return lambda value: entry(key, float_feature((value,))) if value == value else unknown


@dataclass(frozen=True, slots=True)
class _Kind:
    """One storage kind: its TFDS feature (made late: TFDS imports slowly), its Arrow type (None: not in Parquet), and
    how values of a field, given by its `map_key`, are written."""

    feature: Callable[[Any, str], Any]
    arrow: pa.DataType | None
    entries: Callable[[bytes], _MakeEntry]


_TEXTS = _remembered(lambda values: bytes_feature([value.encode() for value in values]))
_INTEGER = _remembered(lambda value: int64_feature((value,)))
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        # Bytes: twelve times faster to parse than TFDS's default list of int64 for a tensor of this size.
        "ecg": _Kind(
            lambda f, doc: f.Tensor(
                shape=(STORED_SAMPLES, len(STORED_LEADS)), dtype=np.int16, encoding="bytes", doc=doc
            ),
            None,
            _made_anew(lambda value: blob_feature(value.data)),
        ),
        "text": _Kind(lambda f, doc: f.Text(doc=doc), pa.string(), _text),
        "int": _Kind(lambda f, doc: f.Scalar(np.int32, doc=doc), pa.int32(), _INTEGER),
        "float": _Kind(lambda f, doc: f.Scalar(np.float32, doc=doc), pa.float32(), _number),
        "bool": _Kind(lambda f, doc: f.Scalar(np.bool_, doc=doc), pa.bool_(), _INTEGER),
        "texts": _Kind(lambda f, doc: f.Sequence(f.Text(), doc=doc), pa.list_(pa.string()), _TEXTS),
        "floats": _Kind(
            lambda f, doc: f.Sequence(np.float32, doc=doc), pa.list_(pa.float32()), _made_anew(float_feature)
        ),
        "ints": _Kind(lambda f, doc: f.Sequence(np.int32, doc=doc), pa.list_(pa.int32()), _remembered(int64_feature)),
        "leads": _Kind(
            lambda f, doc: f.Tensor(shape=(LEAD_COUNT,), dtype=np.bool_, doc=doc),
            pa.list_(pa.bool_(), LEAD_COUNT),
            _made_anew(lambda value: int64_feature(value.tolist())),
        ),
    }
)


def _column(kind: str, doc: str) -> dict[str, str]:
    return {"kind": kind, "doc": doc}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One stored ECG window with everything known about it. Unknown numbers are NaN, unknown texts empty."""

    ecg_uv: Int16[np.ndarray, "5000 12"] = field(
        metadata=_column(
            "ecg", "Microvolts at 500 Hz, [time, lead], leads I..III, aVR, aVL, aVF, V1..V6; -32768 = missing."
        )
    )
    record_id: str = field(metadata=_column("text", "The cohort's own id of the recording."))
    window_index: int = field(metadata=_column("int", "Which 10 s window of the recording, from 0."))
    n_windows: int = field(metadata=_column("int", "10 s windows that the recording was cut into."))
    patient_id: str = field(metadata=_column("text", "The cohort's own patient id; empty where it gives none."))
    patient_id_known: bool = field(metadata=_column("bool", "Whether the cohort gives a patient id."))
    age_years: float = field(
        metadata=_column("float", "Age at recording; NaN = unknown; a lower bound where age_censored.")
    )
    age_censored: bool = field(metadata=_column("bool", "The cohort hides the exact age of the very old."))
    sex: Sex = field(metadata=_column("text", "female, male or unknown."))
    smoker: float = field(metadata=_column("float", "Current smoker, 0 or 1; NaN = unknown."))
    diabetes: float = field(metadata=_column("float", "Diabetes mellitus, 0 or 1; NaN = unknown."))
    systolic_mmhg: float = field(metadata=_column("float", "Systolic blood pressure; NaN = unknown."))
    total_cholesterol_mmol_l: float = field(metadata=_column("float", "Total cholesterol; NaN = unknown."))
    hdl_cholesterol_mmol_l: float = field(metadata=_column("float", "HDL cholesterol; NaN = unknown."))
    height_cm: float = field(metadata=_column("float", "Body height; NaN = unknown."))
    weight_kg: float = field(metadata=_column("float", "Body weight; NaN = unknown."))
    follow_up_years: float = field(
        metadata=_column("float", "Time from the recording to the cohort's event or the last news; NaN = unknown.")
    )
    event_observed: float = field(
        metadata=_column("float", "1 = the event ended follow_up_years, 0 = censored there; NaN = unknown.")
    )
    report_raw: str = field(metadata=_column("text", "The report, verbatim."))
    report_clean: str = field(metadata=_column("text", "The report as text.reports.clean_report leaves it."))
    report_language: str = field(metadata=_column("text", "Guessed from the text: en, de, sv or unknown."))
    label_vocabulary: str = field(metadata=_column("text", "What label_codes are codes of, for example scp."))
    label_codes: tuple[str, ...] = field(
        metadata=_column("texts", "The record's label codes, verbatim, in the source's order.")
    )
    label_values: tuple[float, ...] = field(
        metadata=_column("floats", "One per code: likelihood in percent; 100 where none is given.")
    )
    measurement_names: tuple[str, ...] = field(
        metadata=_column("texts", "Numbers the source states, unit in the name: rr_interval_ms, lvef_percent.")
    )
    measurement_values: tuple[float, ...] = field(metadata=_column("floats", "One per name."))
    annotation_codes: tuple[str, ...] = field(
        metadata=_column("texts", "WFDB codes of waves and beats in this window; a rhythm change is its note, (AFIB.")
    )
    annotation_samples: tuple[int, ...] = field(
        metadata=_column("ints", "One per code: its sample in the window at 500 Hz, from 0.")
    )
    annotation_leads: tuple[str, ...] = field(
        metadata=_column("texts", "One per code: the lead it was seen in; empty where it holds for all.")
    )
    site: str = field(metadata=_column("text", "Hospital or recording site, as the cohort names it."))
    device: str = field(metadata=_column("text", "Electrocardiograph, as the cohort names it."))
    rate_hz_source: float = field(metadata=_column("float", "Sampling rate of the source file."))
    resolution_uv: float = field(
        metadata=_column("float", "Microvolts per converter unit in the source (coarsest lead).")
    )
    band_low_hz: float = field(metadata=_column("float", "Lower band limit the source states; NaN = unknown."))
    band_high_hz: float = field(metadata=_column("float", "Upper band limit the source states; NaN = unknown."))
    mains_hz: float = field(metadata=_column("float", "Mains frequency where it was recorded; NaN = unknown."))
    lead_present: Bool[np.ndarray, "12"] = field(
        metadata=_column("leads", "Which of the twelve leads hold any sample.")
    )
    n_saturated: int = field(metadata=_column("int", "Samples beyond int16, stored at its ends."))
    quality_flags: tuple[str, ...] = field(
        metadata=_column("texts", "Suspicions about the signal; nothing was repaired.")
    )
    waveform_sha256: str = field(metadata=_column("text", "SHA-256 of ecg_uv's bytes."))
    source_row: str = field(metadata=_column("text", "The cohort's own metadata row as JSON, verbatim."))

    def serialised(self) -> bytes:
        """The `tf.train.Example` that TFDS would make, its fields ordered by name.

        TFDS's own serialiser writes them as protobuf's hash map has them, and takes a third of a build's time.
        """
        return example(self.entries())

    def entries(self) -> list[Entry]:
        """What `serialised` is made of: one entry per field."""
        return [make(value) for make, value in zip(_entry_makers(), _values_by_name(self), strict=True)]

    def row(self) -> dict[str, Any]:
        """The record without its waveform: one row of `records-<split>.parquet`."""
        row = {f.name: getattr(self, f.name) for f in _parquet_fields()}
        return row | {"lead_present": self.lead_present.tolist()}


def _fields_by_name() -> list[Field[Any]]:
    return sorted(fields(Record), key=lambda f: protobuf_order(f.name))


_values_by_name = attrgetter(*(f.name for f in _fields_by_name()))


@cache
def _entry_makers() -> tuple[_MakeEntry, ...]:
    """One per field, in the order of the names."""
    return tuple(_kind(f).entries(map_key(f.name)) for f in _fields_by_name())


def _kind(of: Field[Any]) -> _Kind:
    return _KINDS[of.metadata["kind"]]


@cache
def _parquet_fields() -> tuple[Field[Any], ...]:
    return tuple(f for f in fields(Record) if _kind(f).arrow is not None)


@cache
def arrow_schema() -> pa.Schema:
    """Columns of `records-<split>.parquet`: every field but the waveform."""
    return pa.schema([pa.field(f.name, _kind(f).arrow, nullable=False) for f in _parquet_fields()])


def records_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """`Record.row()`s as a table, in order."""
    return pa.Table.from_pylist(list(rows), schema=arrow_schema())


@cache
def features() -> Any:  # tfds.features.FeaturesDict, which has no types
    """The `tfds.features.FeaturesDict` of every cohort."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {f.name: _kind(f).feature(tfds.features, f.metadata["doc"]) for f in fields(Record)}
    )
