"""What is special about Icentia11k: one lead for days, segments of 70 minutes, more windows than anyone trains on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, Literal

import numpy as np
from rich.console import Console

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from ecgclip_jax.signal.storage import StoredECG
from ecgclip_jax.spec.signal import STORED_RATE_HZ, STORED_SAMPLES
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort
from tfds_builders.common.records import Annotation, Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.table_cohort import Row
from tfds_builders.common.wfdb_annotations import read_annotations

FACTS = CohortFacts(
    name="icentia11k",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International",
    homepage="https://physionet.org/content/icentia11k-continuous-ecg/1.0/",
    label_vocabulary="icentia11k",
    package=Path(__file__).parent,
    published_counts={"patients": 11_000},
)
_NAME: Final = re.compile(r"(p\d{5})_s(\d{2})")
_END_OF_RHYTHM: Final = ")"
_WINDOW_S: Final = STORED_SAMPLES / STORED_RATE_HZ


@dataclass(frozen=True)
class Icentia11k(HeaderCohort):
    """PhysioNet's layout, `p00/p00000/p00000_s00.{hea,dat,atr}`, or any part of it."""

    windows_per_segment: int = 0
    """How many windows of each segment are kept, evenly spread; 0 keeps all."""
    segments_per_patient: int = 0
    """How many of each patient's segments are read, from the first on; 0 reads all."""
    stored_as: Literal["I", "II"] = "I"
    """As which lead the device's single lead is stored."""

    own_facts = FACTS
    stratify: ClassVar[Mapping[str, float]] = {"train": 0.7, "validation": 0.15, "test": 0.15}
    """CLEF's shares; which patients they are is ours."""

    def __post_init__(self) -> None:
        if self.windows_per_segment < 0 or self.segments_per_patient < 0:
            raise BuildError("windows_per_segment and segments_per_patient: expected 0 (all) or a positive number")

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {
            "windows_per_segment": self.windows_per_segment,
            "segments_per_patient": self.segments_per_patient,
            "stored_as": self.stored_as,
        }

    def takes(self, path: str) -> bool:
        """Segments of the cohort's naming, up to the number that is asked for."""
        match = _NAME.fullmatch(PurePosixPath(path).name)
        return match is not None and (not self.segments_per_patient or int(match[2]) < self.segments_per_patient)

    def key(self, row: Row) -> RowKey:
        """The patient stands in the segment's name, as in its folder's."""
        name = PurePosixPath(row["path"]).name
        match = _NAME.fullmatch(name)
        return RowKey(name, match[1] if match else "", "")

    def read(self, row: Row) -> ECGRecord:
        """The segment, its only signal named as a standard lead."""
        record = super().read(row)
        if len(record.leads) != 1:
            raise ECGReadError.because(
                ReasonCode.header_lies,
                record.record_id,
                expected="one signal, as in all of Icentia11k",
                found=f"{len(record.leads)}: {', '.join(record.leads)[:80]}",
                remedy="Download the segment again, or leave it out.",
            )
        return replace(record, leads=(self.stored_as,))

    def describe(self, row: Row) -> Described:
        """Nothing but annotations is said of a segment."""
        return Described(device="CardioSTAT")

    def windows(self, record: ECGRecord) -> Sequence[StoredECG]:
        """All windows, or as many as are asked for: from the first to the last at even distances."""
        windows = super().windows(record)
        if not 0 < self.windows_per_segment < len(windows):
            return windows
        chosen = np.linspace(0, len(windows) - 1, self.windows_per_segment).round().astype(int)
        return [windows[i] for i in chosen.tolist()]

    def annotations(self, row: Row, record: ECGRecord) -> list[Annotation]:
        """Beats and rhythms; see `repeated_rhythms`."""
        marks = read_annotations(self.source / row["path"], "atr", record.rate_hz, root=self.source)
        return sorted([*marks, *repeated_rhythms(marks, record.duration_s)], key=lambda mark: mark.time_s)


def repeated_rhythms(marks: Iterable[Annotation], duration_s: float) -> Iterator[Annotation]:
    """A rhythm that goes on is said again at the start of every window, so that each window knows its own."""
    changes = sorted((m for m in marks if m.code.startswith("(") or m.code == _END_OF_RHYTHM), key=lambda m: m.time_s)
    for change, end_s in zip(changes, [*(m.time_s for m in changes[1:]), duration_s], strict=True):
        if change.code == _END_OF_RHYTHM:
            continue
        first = int(change.time_s // _WINDOW_S) + 1
        for index in range(first, int(np.ceil(end_s / _WINDOW_S))):
            yield Annotation(change.code, index * _WINDOW_S)


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Icentia11k:
    """See `registry.make_cohort`; over a terabyte is never downloaded from here."""
    return Icentia11k(given_folder(source, FACTS), **options)
