"""Prepared cohorts as they lie in the data directory: opened from their folder alone, read by row number.

Nothing here needs the builder that wrote them, and nothing here needs jax: loader workers import this file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64, Int16, Int64, Shaped

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES

AccessClass = Literal["open", "registered", "credentialed", "private"]
ACCESS_CLASSES: tuple[AccessClass, ...] = get_args(AccessClass)
"""From free to strict: a run inherits the strictest of its sources."""

_VERSION = re.compile(r"\d+(\.\d+)*")
_IDENTITY_COLUMNS = (
    "record_id",
    "window_index",
    "patient_id",
    "patient_id_known",
    "report_raw",
    "report_clean",
    "label_codes",
    "label_values",
    "waveform_sha256",
)
"""Columns that decide what is trained on and scored; their content is a split's fingerprint."""
CLINICAL_COLUMNS = (
    "smoker",
    "diabetes",
    "systolic_mmhg",
    "total_cholesterol_mmol_l",
    "hdl_cholesterol_mmol_l",
    "height_cm",
    "weight_kg",
    "follow_up_years",
    "event_observed",
)
"""Numbers that objectives may learn from. They came with schema 1.1.0; a cohort that was prepared before is read as one
that knows them of nobody."""
_MEASUREMENT_COLUMNS = ("measurement_names", "measurement_values")
_LEARNT_COLUMNS = ("age_years", "age_censored", "sex", *CLINICAL_COLUMNS, *_MEASUREMENT_COLUMNS)
"""They join the fingerprint where they are there."""


class CohortError(UserError):
    """A prepared cohort that is not there or not whole; the message says what was found and what to do."""


class NoSuchSplitError(CohortError):
    """The cohort is there, the split is not: a small one may hold nothing of it."""


def strictest_access(classes: Iterable[AccessClass]) -> AccessClass:
    """The strictest of some access classes; `open` for none."""
    return max(classes, key=ACCESS_CLASSES.index, default="open")


class WaveformReader:
    """Waveforms of one split by row number. Small to pickle; each process opens the shards at its first read."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k.startswith("_")}

    @cached_property
    def shards(self) -> Any:
        """The serialised records, and the one feature of them that is parsed here."""
        # Late, because TFDS takes half a second to import and tables alone are often enough.
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(self._folder))
        source = builder.as_data_source(split=self._split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        return source, tfds.features.FeaturesDict({"ecg_uv": builder.info.features["ecg_uv"]})

    def __len__(self) -> int:
        return len(self.shards[0])

    def read(self, rows: Sequence[int]) -> Int16[np.ndarray, "rows time lead"]:
        """Stored microvolts `[rows, 5000, 12]` (500 Hz, -32768 = missing), in the order of `rows`.

        Raises:
            CohortError: a record that cannot be read back from its shard.
        """
        source, features = self.shards
        out = np.empty((len(rows), STORED_SAMPLES, len(STORED_LEADS)), np.int16)
        try:
            for k, record in enumerate(source.__getitems__([int(r) for r in rows])):
                out[k] = features.deserialize_example_np(record)["ecg_uv"]
        except (OSError, RuntimeError, ValueError, IndexError, KeyError) as error:
            raise CohortError(
                f"{self._folder}, split {self._split}: rows {min(rows)} to {max(rows)} cannot be read from the shards "
                f"({type(error).__name__}: {error}); the files are damaged or incomplete, prepare the cohort again"
            ) from error
        return out


@dataclass(frozen=True)
class CohortSplit:
    """One split of a prepared cohort: a table of every field but the waveform, and the waveforms by row."""

    cohort: str
    version: str
    split: str
    folder: Path
    access: AccessClass
    licence: str
    table: pa.Table
    """`records-<split>.parquet`: row i describes waveform i."""
    waveforms: WaveformReader

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def name(self) -> str:
        """Cohort, version and split in one word."""
        return f"{self.cohort}/{self.version}/{self.split}"

    @property
    def data_dir(self) -> Path:
        """The data directory that holds the cohort."""
        return self.folder.parent.parent

    def read_ecg(self, rows: Sequence[int]) -> Int16[np.ndarray, "rows time lead"]:
        """Stored microvolts of some rows, see `WaveformReader.read`."""
        return self.waveforms.read(rows)

    @cached_property
    def numeric_names(self) -> frozenset[str]:
        """What `numbers` can be asked for: columns with one number per record, and what the cohort measured."""
        columns = {f.name for f in self.table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)}
        return frozenset(columns.union(CLINICAL_COLUMNS, self._measured_names))

    def numbers(self, name: str) -> Float64[np.ndarray, " records"]:
        """A number of every record, NaN where it is unknown; a cohort older than the field knows it of no record.

        Raises:
            KeyError: `name` is not among `numeric_names`.
        """
        if name not in self.numeric_names:
            raise KeyError(name)
        if name in self.table.column_names:
            own: Float64[np.ndarray, " records"] = self.table.column(name).to_numpy().astype(np.float64)
            return own
        values = np.full(len(self), np.nan)
        if name in self._measured_names:
            row_of, names, measured = self._measurements
            at = names == name
            values[row_of[at]] = measured[at]
        return values

    @cached_property
    def _measurements(self) -> tuple[Int64[np.ndarray, " n"], Shaped[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Record, name and value of everything measured."""
        names, values = (self.table.column(column).combine_chunks() for column in _MEASUREMENT_COLUMNS)
        per_record = pc.list_value_length(names).to_numpy(zero_copy_only=False)
        return (
            np.repeat(np.arange(len(self)), per_record),
            names.flatten().to_numpy(zero_copy_only=False),
            values.flatten().to_numpy(zero_copy_only=False).astype(np.float64),
        )

    @cached_property
    def _measured_names(self) -> frozenset[str]:
        """None for a cohort that was prepared before there were measurements."""
        if not set(_MEASUREMENT_COLUMNS) <= set(self.table.column_names):
            return frozenset()
        return frozenset(self._measurements[1].tolist())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of ids, reports, labels, clinical facts and waveform hashes in row order."""
        digest = hashlib.sha256(self.name.encode())
        learnt = [c for c in _LEARNT_COLUMNS if c in self.table.column_names]
        for column in (*_IDENTITY_COLUMNS, *learnt):
            values = self.table.column(column).to_pylist()
            digest.update(json.dumps([column, values], ensure_ascii=False, separators=(",", ":")).encode())
        return digest.hexdigest()[:16]


def open_cohort(data_dir: str | Path, source: Source) -> CohortSplit:
    """The split of a prepared cohort that `source` names; without a version the newest one.

    Raises:
        CohortError: no such cohort, version or split, or files that do not belong together.
    """
    folder = _version_folder(Path(data_dir), source)
    facts = _facts(folder)
    path = folder / f"records-{source.split}.parquet"
    if not path.is_file():
        there = sorted(p.stem.removeprefix("records-") for p in folder.glob("records-*.parquet"))
        raise NoSuchSplitError(
            f"{source.cohort} {folder.name} has no split {source.split!r}; it has {', '.join(there) or 'none'}"
        )
    opened = CohortSplit(
        cohort=source.cohort,
        version=folder.name,
        split=source.split,
        folder=folder,
        access=facts["access"],
        licence=facts["licence"],
        table=pq.read_table(path),
        waveforms=WaveformReader(folder, source.split),
    )
    _check_same_order(opened)
    return opened


def prepared_cohorts(data_dir: str | Path) -> dict[str, list[str]]:
    """Names of the prepared cohorts in a data directory, with their versions, newest first."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(data_dir).glob("*/*/cohort.json")):
        if _VERSION.fullmatch(path.parent.name):
            found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return {name: sorted(versions, key=_version_key, reverse=True) for name, versions in found.items()}


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _version_folder(data_dir: Path, source: Source) -> Path:
    prepared = prepared_cohorts(data_dir)
    versions = prepared.get(source.cohort, [])
    if not versions:
        raise CohortError(
            f"no prepared cohort {source.cohort!r} in {data_dir}; there: {', '.join(prepared) or 'nothing'}. "
            f"Make it with: ecgclip prepare {source.cohort} --data-dir {data_dir}"
        )
    if source.version is not None and source.version not in versions:
        raise CohortError(
            f"{source.cohort} has no version {source.version} in {data_dir}; there: {', '.join(versions)}"
        )
    return data_dir / source.cohort / (source.version or versions[0])


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "cohort.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CohortError(f"{path} is not JSON ({error}); prepare the cohort again") from error
    if facts.get("access") not in ACCESS_CLASSES or not isinstance(facts.get("licence"), str):
        raise CohortError(
            f"{path}: expected access (one of {', '.join(ACCESS_CLASSES)}) and licence, found "
            f"access {facts.get('access')!r} and licence {facts.get('licence')!r}; prepare the cohort again"
        )
    return dict(facts)


def _check_same_order(opened: CohortSplit) -> None:
    """The table must describe the shards: as many rows, and its first and last row the waveforms it says."""
    missing = [c for c in _IDENTITY_COLUMNS if c not in opened.table.column_names]
    if missing:
        raise CohortError(f"records table of {opened.name} lacks {', '.join(missing)}; prepare the cohort again")
    if len(opened) != len(opened.waveforms):
        raise CohortError(
            f"{opened.name}: the records table has {len(opened)} rows, the shards hold {len(opened.waveforms)}; "
            "prepare the cohort again"
        )
    for row in {0, len(opened) - 1} if len(opened) else ():
        stored = hashlib.sha256(opened.read_ecg([row])[0].tobytes()).hexdigest()
        if stored != opened.table.column("waveform_sha256")[row].as_py():
            raise CohortError(
                f"{opened.name}: row {row} of the records table is not waveform {row} of the shards; "
                "prepare the cohort again"
            )
