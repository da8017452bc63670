"""What is special about CPSC 2021: two leads, recordings of minutes to hours, the patient in the record's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from ecgclip_jax.signal.record import ECGRecord
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.header_cohort import HeaderCohort
from tfds_builders.common.records import Annotation, Described, RowKey
from tfds_builders.common.sources import given_or_fetched
from tfds_builders.common.stated import stated_codes
from tfds_builders.common.table_cohort import Row, RowError
from tfds_builders.common.wfdb_annotations import read_annotations

FACTS = CohortFacts(
    name="cpsc2021",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://physionet.org/content/cpsc2021/1.0.0/",
    label_vocabulary="cpsc2021",
    package=Path(__file__).parent,
)
_NAME = re.compile(r"data_(\d+)_\d+")
_LABELS = ("persistent atrial fibrillation", "paroxysmal atrial fibrillation", "non atrial fibrillation")


@dataclass(frozen=True)
class Cpsc2021(HeaderCohort):
    """CPSC 2021's training set: `Training_set_I`, `Training_set_II`, or loose `data_<patient>_<segment>` records."""

    own_facts = FACTS

    def takes(self, path: str) -> bool:
        """Records of the cohort's naming."""
        return _NAME.fullmatch(PurePosixPath(path).name) is not None

    def key(self, row: Row) -> RowKey:
        """The patient's number stands in the record's name."""
        name = PurePosixPath(row["path"]).name
        match = _NAME.fullmatch(name)
        return RowKey(name, match[1] if match else "", "")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`; age and sex are not published."""
        label = " ".join(row["comments"].split())
        if label not in _LABELS:
            raise RowError(
                BuildReason.labels_malformed, f"comment: expected one of {', '.join(_LABELS)}, found {label[:60]!r}"
            )
        return Described(labels=stated_codes((label,)), site=PurePosixPath(row["path"]).parts[0])

    def annotations(self, row: Row, record: ECGRecord) -> list[Annotation]:
        """Beats and changes of rhythm."""
        return read_annotations(self.source / row["path"], "atr", record.rate_hz, root=self.source)


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> Cpsc2021:
    """See `registry.make_cohort`."""
    return Cpsc2021(given_or_fetched(source, FACTS, downloads, "cpsc2021/1.0.0", console, ("Training_",)), **options)
