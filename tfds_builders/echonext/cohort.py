"""What is special about EchoNext: one array per split, rows joined to a table by position, z-scores to be undone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from rich.console import Console

from ecgclip_jax.signal.npy import open_npy
from ecgclip_jax.signal.paths import MAX_HEADER_BYTES, read_regular_file
from ecgclip_jax.signal.record import ECGReadError, ECGRecord, SourceFacts
from ecgclip_jax.spec.signal import LEADS_12
from tfds_builders.common.audit import BuildReason
from tfds_builders.common.cohort import BuildError, CohortFacts
from tfds_builders.common.joins import joint_sha256
from tfds_builders.common.metadata import MetadataTable, read_csv
from tfds_builders.common.records import Described, RowKey
from tfds_builders.common.schema import Sex
from tfds_builders.common.source_faults import measured, measurement
from tfds_builders.common.sources import given_folder
from tfds_builders.common.stated import stated_age, stated_codes
from tfds_builders.common.table_cohort import Row, RowError, TableCohort

FACTS = CohortFacts(
    name="echonext",
    version="1.1.0",
    access="registered",
    licence="PhysioNet Restricted Health Data License 1.5.0",
    homepage="https://physionet.org/content/echonext/1.1.0/",
    label_vocabulary="echonext",
    package=Path(__file__).parent,
    published_counts={
        "records": 100_000,
        "records/train": 72_475,
        "records/validation": 4_626,
        "records/test": 5_442,
    },
)
TABLES: Final = ("echonext_metadata_100k.csv", "EchoNext_metadata_100k.csv")
"""The release's file, and as its README spells it."""
CONSTANTS: Final = "waveform_normalization_params.json"
COMPOSITE: Final = "shd_moderate_or_greater_flag"
FLAGS: Final = (
    "lvef_lte_45_flag",
    "lvwt_gte_13_flag",
    "aortic_stenosis_moderate_or_greater_flag",
    "aortic_regurgitation_moderate_or_greater_flag",
    "mitral_regurgitation_moderate_or_greater_flag",
    "tricuspid_regurgitation_moderate_or_greater_flag",
    "pulmonary_regurgitation_moderate_or_greater_flag",
    "rv_systolic_dysfunction_moderate_or_greater_flag",
    "pericardial_effusion_moderate_large_flag",
    "pasp_gte_45_flag",
    "tr_max_gte_32_flag",
    COMPOSITE,
)
NO_FLAG: Final = "no_flag"
"""The code of a row whose flags are all 0: without any code it would count as unlabelled."""
MEASURED: Final[Mapping[str, str]] = {
    "ventricular_rate": "ventricular_rate_bpm",
    "atrial_rate": "atrial_rate_bpm",
    "pr_interval": "pr_interval_ms",
    "qrs_duration": "qrs_duration_ms",
    "qt_corrected": "qt_corrected_ms",
    "lvef_value": "lvef_percent",
    "ivs_measurement": "ivs_thickness_cm",
    "lvpw_measurement": "lvpw_thickness_cm",
    "pasp_value": "pasp_mmhg",
    "tr_max_velocity_value": "tr_max_velocity_m_s",
}
"""Numbers of the ECG and of the echo: column → name with unit. A table may lack some of them."""
RATE_HZ, N_SAMPLES, N_FEATURES = 250.0, 2500, 7
UV_PER_UNIT: Final = 4.88
"""Microvolts per unit once the z-scores are undone: GE MUSE's resolution, which fits the amplitudes; inferred, as the
publisher states no unit."""
_SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}
_SEX: Final[Mapping[str, Sex]] = {
    **dict.fromkeys(("0", "0.0", "female", "f"), "female"),
    **dict.fromkeys(("1", "1.0", "male", "m"), "male"),
}
_OLDEST_YEARS: Final = 90.0
_POSITION = "npy_row"
"""Column that `metadata` adds: the row of the split's array."""
_LEAST_ROWS, _LEAST_CORRELATION = 10, 0.9
"""Of a split's features against the table: below ten rows chance correlates; in order it is 1 but for filled gaps."""


@dataclass(frozen=True)
class EchoNext(TableCohort):
    """`EchoNext_<split>_waveforms.npy` beside the table and the constants of the z-scores."""

    own_facts = FACTS
    table_name = TABLES[0]
    columns = ("ecg_key", "patient_key", "split", "sex", "age_at_ecg", *FLAGS)
    stratify = None

    def metadata(self) -> MetadataTable:
        """The table with every row's position in its split's array; refused where the two do not fit."""
        table_path = next((p for name in TABLES if (p := self.source / name).is_file()), self.source / TABLES[0])
        metadata = read_csv(table_path, self.columns)
        normalisation(self.source)
        if metadata.malformed:
            number, defect = metadata.malformed[0]
            raise BuildError(
                f"{table_path.name}, row {number}: {defect}. Nothing but its position joins a row to its tracing, so "
                "the table must be whole: download it again"
            )
        splits = [split.strip() for split in metadata.table["split"].to_pylist()]
        seen: Counter[str] = Counter()
        positions = []
        for split in splits:
            positions.append(str(seen[split]))
            seen[split] += 1
        table = metadata.table.append_column(_POSITION, pa.array(positions, pa.string()))
        for split in _SPLITS:
            self._compare(split, table.filter(pa.array([s == split for s in splits])))
        constants = read_regular_file(str((self.source / CONSTANTS).resolve()), max_bytes=MAX_HEADER_BYTES)
        return MetadataTable(table, (), joint_sha256((metadata.sha256, hashlib.sha256(constants).hexdigest())))

    def _compare(self, split: str, rows: pa.Table) -> None:
        """Holds a split's rows against its arrays, as far as these are there.

        Raises:
          BuildError: if an array has another length, or features tell that it stands in another order.
        """
        for path, row_shape in ((waveforms(split), (1, N_SAMPLES, 12)), (features(split), (N_FEATURES,))):
            if not (self.source / path).exists():
                continue
            try:
                array = open_npy(self.source / path, root=self.source, row_shape=row_shape)
            except ECGReadError as error:
                raise BuildError(str(error)) from error
            if len(array) != rows.num_rows:
                raise BuildError(
                    f"{self.table_name} has {rows.num_rows:,} rows of {split} and {path} {len(array):,}; nothing but "
                    "their position joins them, so neither may be cut or sorted: download both again"
                )
            if row_shape == (N_FEATURES,) and not in_order(rows, np.asarray(array, np.float64)):
                raise BuildError(
                    f"{path}: expected the rows of {split} in the order of {self.table_name}, found features that have "
                    "nothing in common with its columns; one of the two was sorted: download both again"
                )

    def key(self, row: Row) -> RowKey:
        """ECG, patient and official split; rows of `no_split` are in none of ours."""
        return RowKey(row["ecg_key"].strip(), row["patient_key"].strip(), _SPLITS.get(row["split"].strip(), ""))

    def path(self, row: Row) -> str:
        """The array of the row's split."""
        return waveforms(row["split"].strip())

    def read(self, row: Row) -> ECGRecord:
        """See `TableCohort.read`: the z-score undone lead by lead, in µV."""
        z = _kept_open(self.source, self.path(row))[int(row[_POSITION]), 0]
        mean, sd = normalisation(self.source)
        signal_uv = ((np.asarray(z, np.float64) * sd + mean) * UV_PER_UNIT).astype(np.float32)
        facts = SourceFacts("echonext npy", resolution_uv=UV_PER_UNIT)
        return ECGRecord(row["ecg_key"].strip(), signal_uv, LEADS_12, RATE_HZ, facts)

    def describe(self, row: Row) -> Described:
        """See `TableCohort.describe`."""
        age_years, censored, age_reasons = stated_age(row["age_at_ecg"])
        sex = _SEX.get(row["sex"].strip().lower(), "unknown")
        labels, label_reasons = labels_of(row)
        return Described(
            age_years=age_years,
            age_censored=censored or (age_years is not None and age_years >= _OLDEST_YEARS),
            sex=sex,
            labels=labels,
            measurements=measured((name, row.get(column, "")) for column, name in MEASURED.items()),
            reasons=(
                BuildReason.filtered_by_publisher.value,
                BuildReason.unit_inferred.value,
                *age_reasons,
                *((BuildReason.sex_unknown.value,) if sex == "unknown" else ()),
                *label_reasons,
            ),
        )


def waveforms(split: str) -> str:
    """The file with a split's tracings."""
    return f"EchoNext_{split}_waveforms.npy"


def features(split: str) -> str:
    """The file with a split's seven standardised features."""
    return f"EchoNext_{split}_tabular_features.npy"


@lru_cache(maxsize=4)
def _kept_open(source: Path, name: str) -> Any:
    """A mapped array that stays open in this worker."""
    return open_npy(source / name, root=source, row_shape=(1, N_SAMPLES, 12))


@lru_cache(maxsize=4)
def normalisation(source: Path) -> tuple[Float64[np.ndarray, "12"], Float64[np.ndarray, "12"]]:
    """Mean and standard deviation of each lead that the publisher's z-scores were made with.

    Raises:
      BuildError: no such file in the source, or another content; it says where the authors' is.
    """
    try:
        path = (source / CONSTANTS).resolve(strict=True)
        stated = json.loads(read_regular_file(str(path), max_bytes=MAX_HEADER_BYTES))
        mean, sd = (np.asarray(stated[name], np.float64) for name in ("mean", "std"))
        usable = mean.shape == sd.shape == (12,) and np.isfinite(mean).all() and np.isfinite(sd).all()
        found = "" if usable and (sd > 0).all() else f"mean of shape {mean.shape}, std of shape {sd.shape}"
    except FileNotFoundError:
        found = "no such file"
    except (ECGReadError, ValueError, TypeError, KeyError, OSError) as error:
        found = f"{type(error).__name__}: {error}"
    if found:
        raise BuildError(
            f"{source / CONSTANTS}: expected the means and standard deviations of the twelve leads (`mean`, `std`), "
            f"without which the published z-scores have no unit; found {found}. It is part of the authors' code, not "
            'of the data: github.com/PierreElias/IntroECG, "7-EchoNext Minimodel/models/echonext_multilabel_minimodel/'
            f'{CONSTANTS}". Lay it into {source}'
        )
    return mean, sd


def in_order(rows: pa.Table, features: Float64[np.ndarray, "rows features"]) -> bool:
    """Whether some feature is a standardised column of the table, row by row; True where too few rows could tell.

    Which column a feature is does not matter: the release's README names them in another order than they stand.
    """
    if len(features) < _LEAST_ROWS:
        return True
    best = 0.0
    for name in ("age_at_ecg", *(name for name in MEASURED if name in rows.column_names)):
        cells = [measurement(cell) for cell in rows[name].to_pylist()]
        column = np.array([np.nan if cell is None else cell for cell in cells])
        for feature in features.T:
            both = np.isfinite(column) & np.isfinite(feature)
            if both.sum() >= _LEAST_ROWS and np.ptp(column[both]) > 0 and np.ptp(feature[both]) > 0:
                best = max(best, abs(float(np.corrcoef(column[both], feature[both])[0, 1])))
    return best >= _LEAST_CORRELATION


def labels_of(row: Row) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    """The flags that are 1, or that none is; nothing, with a reason, where a flag is missing.

    Raises:
      RowError: `labels_malformed`.
    """
    cells = {flag: row[flag].strip() for flag in FLAGS}
    numbers = {flag: measurement(cell) for flag, cell in cells.items()}
    for flag, cell in cells.items():
        if cell.lower() not in ("", "nan") and numbers[flag] not in (0.0, 1.0):
            raise RowError(BuildReason.labels_malformed, f"{flag}: expected 0 or 1, found {cell[:40]!r}")
    if any(number is None for number in numbers.values()):
        return (), (BuildReason.labels_incomplete.value,)
    raised = [flag for flag, number in numbers.items() if number]
    return stated_codes(raised or (NO_FLAG,)), ()


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> EchoNext:
    """See `registry.make_cohort`; never downloaded."""
    return EchoNext(given_folder(source, FACTS), **options)
