"""What is special about SaMi-Trop: tracings without ids, so that row and tracing belong together by position alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from rich.console import Console

from ecgclip_jax.signal.hdf5 import dataset, open_hdf5, record_of_millivolts
from ecgclip_jax.signal.record import ECGReadError, ECGRecord
from tfds_builders.code15.cohort import RATE_HZ, flag, follow_up, kept_open, sex_of
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.header_cohort import stated_age
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.splits import DEFAULT_SHARES
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="sami_trop",
    version="1.0.0",
    access="open",
    licence="Creative Commons Attribution 4.0 International",
    homepage="https://doi.org/10.5281/zenodo.4905618",
    label_vocabulary="code15",
    package=Path(__file__).parent,
)
_TRACINGS = "exams.hdf5"
_POSITION = "hdf5_row"
_STATED = 100.0


@dataclass(frozen=True)
class SamiTrop(TableCohort):
    """Zenodo's layout with the archive unpacked: `exams.csv` beside `exams.hdf5`."""

    table_name = "exams.csv"
    columns = ("exam_id", "age", "is_male", "normal_ecg", "death", "timey")
    splits = ("train", "validation", "test")
    stratify: ClassVar[Mapping[str, float]] = DEFAULT_SHARES
    zero_padded = True

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return FACTS

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {}

    def metadata(self) -> MetadataTable:
        """The table with every row's position; refused where it has another length than the tracings."""
        metadata = read_csv(self.source / self.table_name, self.columns)
        try:
            with open_hdf5(self.source / _TRACINGS, root=self.source) as file:
                n_tracings = int(dataset(file, "tracings", 3).shape[0])
        except ECGReadError as error:
            raise BuildError(str(error)) from error
        if n_tracings != metadata.source_rows:
            raise BuildError(
                f"{self.table_name} has {metadata.source_rows:,} rows and {_TRACINGS} {n_tracings:,} tracings; nothing "
                "but their position joins them, so neither may be cut or sorted: download both again"
            )
        # A malformed row has its number, too: the rows after it keep their tracings.
        positions = [str(number) for number in metadata.table[ROW_NUMBER].to_pylist()]
        table = metadata.table.append_column(_POSITION, pa.array(positions, pa.string()))
        return MetadataTable(table, metadata.malformed, metadata.sha256)

    def key(self, row: Row) -> RowKey:
        """One exam per person."""
        exam_id = row["exam_id"].strip()
        return RowKey(exam_id, exam_id, "")

    def path(self, row: Row) -> str:
        """All tracings stand in one file."""
        return _TRACINGS

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`; tracings are time by leads, in mV."""
        tracing = dataset(kept_open(self.source, _TRACINGS), "tracings", 3)[int(row[_POSITION])]
        return record_of_millivolts(tracing, 1, row["exam_id"].strip(), RATE_HZ, "sami_trop hdf5")

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        normal = flag(row["normal_ecg"])
        if normal is None:
            raise RowError(
                BuildReason.labels_malformed, f"normal_ecg: expected True or False, found {row['normal_ecg'][:40]!r}"
            )
        age_years, censored, age_reasons = stated_age(row["age"])
        sex, sex_reasons = sex_of(row["is_male"])
        return Described(
            age_years=age_years,
            age_censored=censored,
            sex=sex,
            clinical=follow_up(row),
            labels=(("normal_ecg", _STATED),) if normal else (),
            reasons=(*age_reasons, *sex_reasons),
        )


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> SamiTrop:
    """See `registry.make_cohort`; Zenodo publishes no list of SHA-256, so the user downloads it."""
    return SamiTrop(given_folder(source, FACTS), **options)
