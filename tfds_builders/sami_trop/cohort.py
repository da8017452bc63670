"""What is special about SaMi-Trop: tracings without ids, so that row and tracing belong together by position alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from ecgclip_jax.signal.hdf5 import dataset, open_hdf5
from ecgclip_jax.signal.record import ECGReadError
from tfds_builders.code15.cohort import POSITION, Code15
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv
from tfds_builders.common.records import RowKey
from tfds_builders.common.sources import given_folder
from tfds_builders.common.table_cohort import Row

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


@dataclass(frozen=True)
class SamiTrop(Code15):
    """Zenodo's layout with the archive unpacked: `exams.csv` beside `exams.hdf5`; columns and signals are CODE's."""

    own_facts = FACTS
    columns = ("exam_id", "age", "is_male", "normal_ecg", "death", "timey")
    label_columns = ("normal_ecg",)

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
        table = metadata.table.append_column(POSITION, pa.array(positions, pa.string()))
        return MetadataTable(table, metadata.malformed, metadata.sha256)

    def key(self, row: Row) -> RowKey:
        """One exam per person."""
        exam_id = row["exam_id"].strip()
        return RowKey(exam_id, exam_id, "")

    def path(self, row: Row) -> str:
        """All tracings stand in one file."""
        return _TRACINGS


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> SamiTrop:
    """See `registry.make_cohort`; Zenodo publishes no list of SHA-256, so the user downloads it."""
    return SamiTrop(given_folder(source, FACTS), **options)
