"""What became of every source record: one row each, reasons by code, counts that must add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa


class Outcome(StrEnum):
    """What became of a source record."""

    kept = "kept"
    flagged = "flagged"
    """Kept, with something to know about it."""
    dropped = "dropped"


class BuildReason(StrEnum):
    """Reasons that the build itself finds; a reader's and a quality check's own codes stand beside them."""

    row_malformed = "row_malformed"
    record_id_missing = "record_id_missing"
    record_id_repeated = "record_id_repeated"
    split_unknown = "split_unknown"
    patient_in_two_splits = "patient_in_two_splits"
    labels_malformed = "labels_malformed"
    labels_incomplete = "labels_incomplete"
    """Some of a fixed set of labels are missing: the recording counts as unlabelled."""
    conversion_failed = "conversion_failed"
    age_out_of_range = "age_out_of_range"
    age_unknown = "age_unknown"
    sex_unknown = "sex_unknown"
    height_out_of_range = "height_out_of_range"
    weight_out_of_range = "weight_out_of_range"
    patient_unknown = "patient_unknown"
    zero_padding_removed = "zero_padding_removed"
    """The source had filled the recording up with zeros at an end; they were cut off."""
    gain_misprinted = "gain_misprinted"
    """The gain is one that is known to be wrong in published headers; nothing was rescaled."""
    not_in_table = "not_in_table"
    """A signal without a row in the metadata."""
    not_in_signals = "not_in_signals"
    """A row without a signal."""
    filtered_by_publisher = "filtered_by_publisher"
    """Baseline, extremes or both were taken away before publication: they are not as recorded."""
    unit_inferred = "unit_inferred"
    """The publisher states no unit of amplitude; the one taken fits the signals."""
    no_echo_near = "no_echo_near"
    """No echocardiogram lies near enough to the ECG, or another ECG is nearer to it."""
    listed_as_duplicate = "listed_as_duplicate"
    """The publisher's own list of duplicates names it."""
    duplicate_waveform = "duplicate_waveform"
    """The same samples stand under another record id of the same split."""
    duplicate_waveform_across_splits = "duplicate_waveform_across_splits"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One source record's fate."""

    source_index: int
    """Position in the source, from 0."""
    record_id: str
    split: str
    """Empty where none could be told."""
    outcome: Outcome
    reasons: tuple[str, ...]
    detail: str
    """A sentence on why it was dropped; empty otherwise."""
    n_windows: int


AUDIT_SCHEMA = pa.schema(
    [
        ("source_index", pa.int64()),
        ("record_id", pa.string()),
        ("split", pa.string()),
        ("outcome", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("detail", pa.string()),
        ("n_windows", pa.int32()),
    ]
)


def audit_table(rows: Iterable[AuditRow]) -> pa.Table:
    """The rows, in order."""
    listed = list(rows)
    return pa.table([[getattr(row, name) for row in listed] for name in AUDIT_SCHEMA.names], schema=AUDIT_SCHEMA)


class AuditFault(AssertionError):
    """The audit does not add up: a fault of the builder, never of the data."""


def settle(rows: Iterable[AuditRow], source_rows: int) -> dict[str, Any]:
    """Counts per outcome, split and reason.

    Raises:
      AuditFault: if a source record has no row or two.
    """
    outcomes: Counter[str] = Counter()
    splits: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {outcome.value: Counter() for outcome in Outcome}
    seen = bytearray(source_rows)
    for row in rows:
        if not 0 <= row.source_index < source_rows:
            raise AuditFault(f"audit row {row.source_index} ({row.record_id}) of {source_rows} source records")
        if seen[row.source_index]:
            raise AuditFault(f"source record {row.source_index} ({row.record_id}) was counted twice")
        seen[row.source_index] = 1
        outcomes[row.outcome] += 1
        splits.setdefault(row.split, Counter())[row.outcome] += 1
        reasons[row.outcome].update(set(row.reasons))
    if (audited := sum(outcomes.values())) != source_rows:
        raise AuditFault(f"{audited} audit rows for {source_rows} source records")
    return {
        "source_rows": source_rows,
        "outcomes": {outcome.value: outcomes[outcome] for outcome in Outcome},
        "splits": {split: {o.value: counts[o] for o in Outcome} for split, counts in sorted(splits.items())},
        "reasons": {outcome: dict(sorted(counts.items())) for outcome, counts in reasons.items() if counts},
    }
