"""Cohorts of a metadata table and signal files: planning and conversion; a builder adds only what is special."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.signal.record import ECGReadError, ECGRecord
from ecgclip_jax.signal.storage import StoredECG, to_stored
from ecgclip_jax.spec.few_labels import person
from ecgclip_jax.text.reports import CleaningStyle
from tfds_builders.common.audit import AuditRow, BuildReason, Outcome
from tfds_builders.common.cohort import (
    OFFICIAL,
    BuildError,
    Cohort,
    CohortFacts,
    Plan,
    Shard,
    SourceOutcome,
    SplitRule,
    rows_per_shard,
)
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv
from tfds_builders.common.records import Annotation, Described, RowKey, audit_reasons, by_window, make_record
from tfds_builders.common.source_faults import suspected_gain, without_zero_padding
from tfds_builders.common.splits import DEFAULT_SHARES, read_id_lists, stratified_splits

Row = Mapping[str, str]


class RowError(ValueError):
    """A row of which no record can be made; `reason` goes into the audit."""

    def __init__(self, reason: BuildReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class TableCohort(Cohort):
    """A cohort of one metadata table, one row per recording, with signal files below the same folder."""

    source: Path
    report_cleaning: CleaningStyle = "plain"
    splits_from: Path | None = None
    """A folder with the id lists of an earlier build: its splits instead of the cohort's own or ours."""

    table_name: ClassVar[str]
    """The metadata table's file name."""
    own_facts: ClassVar[CohortFacts]
    """The cohort's facts, where they depend on no option."""
    columns: ClassVar[tuple[str, ...]]
    """Columns that the builder reads."""
    splits: ClassVar[tuple[str, ...]] = tuple(DEFAULT_SHARES)
    """From training to test. A patient found in two splits stays in the last of them, so that no test is spoilt."""
    stratify: ClassVar[Mapping[str, float] | None] = DEFAULT_SHARES
    """Share of the patients in each of `splits`, which `strata` spreads; None for a cohort whose authors made splits:
    then, and only then, `RowKey.split` is looked at."""
    split_seed: ClassVar[int] = 0
    zero_padded: ClassVar[bool] = False
    """The source fills recordings up with zeros: they are cut off, and the audit says so."""

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`."""
        return self.own_facts

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`; none by default."""
        return {}

    @abstractmethod
    def key(self, row: Row) -> RowKey:
        """Record, patient and split of a row."""

    @abstractmethod
    def path(self, row: Row) -> str:
        """The signal file, relative to the source folder."""

    @abstractmethod
    def describe(self, row: Row) -> Described:
        """The row in the schema's terms.

        Raises:
          RowError: if a cell that must be understood is not.
        """

    def read(self, row: Row) -> ECGRecord:
        """The recording; a cohort whose signals are no files of one record each reads them in its own way.

        Raises:
          ECGReadError: if it cannot be read.
        """
        return read_ecg(os.path.join(self.source, self.path(row)), root=self.source)

    def check(self, record: ECGRecord) -> None:
        """Compares what was read with what the cohort promises of every file.

        Raises:
          ECGReadError: if it differs.
        """

    def complete(self, described: Described, record: ECGRecord) -> Described:
        """Adds what the recording tells and its row does not."""
        return described

    def annotations(self, row: Row, record: ECGRecord) -> Sequence[Annotation]:
        """Waves, beats and rhythms that the cohort marked in a recording."""
        return ()

    def windows(self, record: ECGRecord) -> Sequence[StoredECG]:
        """The windows of a recording that are kept: all of them; a cohort of days may thin them."""
        return to_stored(record)

    def strata(self, row: Row) -> Iterable[str]:
        """The codes by which patients are spread over splits that we make; the row's labels by default."""
        try:
            return [code for code, _ in self.describe(row).labels]
        except RowError:
            return ()

    def plan(self) -> Plan:
        """See `Cohort.plan`."""
        metadata = self.metadata()
        if not metadata.source_rows:
            raise BuildError(f"{self.source / self.table_name} has a header but no rows")
        rows = [row for batch in metadata.table.to_batches() for row in batch.to_pylist()]
        keys, rule = self._with_splits(rows, [self.key(row) for row in rows])
        members, dropped = self._sort_into_splits(metadata, keys)
        shards = tuple(
            Shard(split, index, len(rows), rows)
            for split in self.splits
            for index, rows in enumerate(_slices(metadata.table, members[split]))
        )
        source_hash = hashlib.sha256(f"{metadata.sha256} {rule}".encode()).hexdigest()
        return Plan(shards, tuple(dropped), metadata.source_rows, source_hash, rule)

    def metadata(self) -> MetadataTable:
        """The table; a cohort whose facts stand in several tables or in file headers joins them here.

        Raises:
          BuildError: if it is not what it should be.
        """
        return read_csv(self.source / self.table_name, self.columns)

    def _with_splits(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> tuple[list[RowKey], SplitRule]:
        if self.splits_from is not None:
            lists = read_id_lists(self.splits_from)
            listed = {record_id: split for split in self.splits for record_id in lists.get(split, ())}
            digest = hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest()
            rule = SplitRule("frozen", f"{len(listed)} listed records, SHA-256 {digest}")
            return [replace(key, split=listed.get(key.record_id, "")) for key in keys], rule
        if self.stratify is None:
            return list(keys), OFFICIAL
        codes: dict[str, set[str]] = {}
        for row, key in zip(rows, keys, strict=True):
            codes.setdefault(person(key.record_id, key.patient_id), set()).update(self.strata(row))
        made = stratified_splits(codes, self.stratify, self.split_seed)
        split_of = made.split_of
        return [
            RowKey(key.record_id, key.patient_id, split_of[person(key.record_id, key.patient_id)]) for key in keys
        ], made.rule

    def _sort_into_splits(
        self, metadata: MetadataTable, keys: Sequence[RowKey]
    ) -> tuple[dict[str, list[int]], list[AuditRow]]:
        """Rows of the table by split, and the audit of those that no split takes."""
        dropped = [_dropped(number, "", "", BuildReason.row_malformed, defect) for number, defect in metadata.malformed]
        latest: dict[str, int] = {}
        for key in keys:
            if key.patient_id and key.split in self.splits:
                latest[key.patient_id] = max(latest.get(key.patient_id, 0), self.splits.index(key.split))
        members: dict[str, list[int]] = {split: [] for split in self.splits}
        seen: set[str] = set()
        for i, (number, key) in enumerate(zip(metadata.table[ROW_NUMBER].to_pylist(), keys, strict=True)):
            if defect := self._defect(key, seen, latest):
                dropped.append(_dropped(number, key.record_id, key.split, *defect))
            else:
                members[key.split].append(i)
            seen.add(key.record_id)
        return members, dropped

    def _defect(self, key: RowKey, seen: set[str], latest: Mapping[str, int]) -> tuple[BuildReason, str] | None:
        if not key.record_id:
            return BuildReason.record_id_missing, "the row has no record id"
        if key.record_id in seen:
            return BuildReason.record_id_repeated, "an earlier row has the same record id and was taken"
        if key.split not in self.splits:
            return BuildReason.split_unknown, f"the row belongs to none of {', '.join(self.splits)}"
        kept_in = self.splits[latest.get(key.patient_id, self.splits.index(key.split))]
        if kept_in != key.split:
            return BuildReason.patient_in_two_splits, f"the patient also stands in {kept_in}, where he is kept"
        return None

    def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
        """See `Cohort.convert`."""
        vocabulary = self.facts.label_vocabulary
        for row in shard.payload.to_pylist():
            number = row.pop(ROW_NUMBER)
            yield self._convert_row(number, shard.split, row, vocabulary)

    def _convert_row(self, number: int, split: str, row: Row, vocabulary: str) -> SourceOutcome:
        key = self.key(row)
        try:
            described, record = self.describe(row), self.read(row)
            self.check(record)
            described = self.complete(described, record)
            record, cut = without_zero_padding(record) if self.zero_padded else (record, ())
            windows, marks = self.windows(record), by_window(self.annotations(row, record))
        except (RowError, ECGReadError) as error:
            return self._refused(number, key.record_id, split, error.reason, str(error))
        except Exception as error:  # one ECG that trips a library must not end the build of a million
            message = f"{type(error).__name__}: {error}"
            return self._refused(number, key.record_id, split, BuildReason.conversion_failed, message)
        source_row = json.dumps(row, ensure_ascii=False)
        records = tuple(
            make_record(
                window, key, described, vocabulary, source_row, self.report_cleaning, marks.get(window.window_index, ())
            )
            for window in windows
        )
        reasons = (*audit_reasons(key, described, windows, self.report_cleaning), *suspected_gain(record), *cut)
        return SourceOutcome(number, key.record_id, split, records, reasons)

    def _refused(self, number: int, record_id: str, split: str, reason: str, message: str) -> SourceOutcome:
        # The audit travels with the dataset; where the source lay on this machine does not.
        detail = message.replace(f"{self.source.resolve()}/", "").replace(f"{self.source}/", "")
        return SourceOutcome(number, record_id, split, (), (str(reason),), detail)


def _dropped(number: int, record_id: str, split: str, reason: BuildReason, detail: str) -> AuditRow:
    return AuditRow(number, record_id, split, Outcome.dropped, (reason.value,), detail, 0)


def _slices(table: pa.Table, rows: list[int]) -> Iterator[pa.Table]:
    size = rows_per_shard(len(rows))
    for start in range(0, len(rows), size):
        yield table.take(rows[start : start + size])
