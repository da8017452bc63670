"""From finished shards to a prepared dataset: merge, look across records, check, count, write the metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfds_builders.common.audit import AuditRow, BuildReason, Outcome, audit_table, settle
from tfds_builders.common.cohort import BuildError, CohortFacts, Plan
from tfds_builders.common.content_audit import COLUMNS, content_audit
from tfds_builders.common.disclosure import disclosable_counts, disclosable_rows
from tfds_builders.common.schema import SCHEMA_VERSION, arrow_schema, features
from tfds_builders.common.shards import ShardFiles, ShardResult, write_json
from tfds_builders.common.signal_audit import StoredSplit, signal_audit
from tfds_builders.common.splits import few_shot_name, few_shot_subsets, write_id_lists

_RECORDED_VERSIONS = ("ecgclip_jax", "tensorflow-datasets", "array-record", "numpy", "scipy")
_IDENTITY_COLUMNS = ["record_id", "patient_id", "patient_id_known", "waveform_sha256"]


def finalise(
    facts: CohortFacts,
    options: Mapping[str, Any],
    plan: Plan,
    results: Sequence[ShardResult],
    parts: Path,
    folder: Path,
) -> dict[str, Any]:
    """Turns the shard files in `parts` into a prepared dataset in `folder`; returns what `cohort.json` says.

    Args:
      results: one per shard of the plan, in the plan's order.

    Raises:
      BuildError: if no source record became an ECG.
      AuditFault: if the counts do not add up. AssertionError: if a patient stands in two splits.
    """
    by_split = _by_split(results)
    if not by_split:
        raise BuildError(_nothing_kept(facts, plan, results, parts))
    identity = pa.concat_tables([_merge_records(split, shards, parts, folder) for split, shards in by_split.items()])
    _refuse_shared_patients(identity)
    rows = list(_flag_duplicates(chain(plan.dropped, _shard_audit(results, parts)), _duplicates(identity)))
    audit = settle(rows, plan.source_rows)
    for split, shards in by_split.items():
        _move_shards(facts.name, split, shards, parts, folder)
    _write_audit(facts, audit, rows, by_split, folder)
    _write_tfds_metadata(facts, by_split, folder)
    cohort = _cohort_json(facts, options, plan, results, identity, audit, _freeze_splits(identity, folder))
    write_json(folder / "cohort.json", cohort)
    return cohort


def _write_audit(
    facts: CohortFacts,
    audit: Mapping[str, Any],
    rows: Sequence[AuditRow],
    by_split: Mapping[str, Sequence[ShardResult]],
    folder: Path,
) -> None:
    """`audit.parquet`, one row per source record, and `audit.json`, all counts and measures."""
    in_order = sorted(rows, key=lambda row: row.source_index)
    told = disclosable_rows(in_order, facts, folder.parent.parent)
    pq.write_table(audit_table(told), folder / "audit.parquet")
    tables = [
        table.append_column("split", pa.array([split] * table.num_rows))
        for split in by_split
        for table in [pq.read_table(folder / f"records-{split}.parquet", columns=list(COLUMNS))]
    ]
    records = pa.concat_tables(tables)
    splits = [
        StoredSplit(name, tuple(_shard_files(facts.name, name, shards, folder))) for name, shards in by_split.items()
    ]
    counts = disclosable_counts({**audit, **content_audit(records, facts, audit["source_rows"])}, facts)
    signal = signal_audit(splits, records, examples=facts.access == "open")
    write_json(folder / "audit.json", {**counts, "signal": signal})


def _by_split(results: Sequence[ShardResult]) -> dict[str, list[ShardResult]]:
    """Shards that hold records, by split in the plan's order."""
    by_split: dict[str, list[ShardResult]] = {}
    for result in results:
        if result.records:
            by_split.setdefault(result.split, []).append(result)
    return by_split


def _merge_records(split: str, shards: Sequence[ShardResult], parts: Path, folder: Path) -> pa.Table:
    """Writes `records-<split>.parquet` shard by shard; returns the identity columns."""
    identity = []
    with pq.ParquetWriter(folder / f"records-{split}.parquet", arrow_schema()) as writer:
        for shard in shards:
            table = pq.read_table(ShardFiles(parts, shard.split, shard.index).records, schema=arrow_schema())
            writer.write_table(table)
            identity.append(table.select(_IDENTITY_COLUMNS))
    merged = pa.concat_tables(identity)
    return merged.append_column("split", pa.array([split] * merged.num_rows))


def _freeze_splits(identity: pa.Table, folder: Path) -> dict[str, str]:
    """Writes the record ids of every split, and of the few-shot subsets of `train`; returns their hashes."""
    of_split: dict[str, list[tuple[str, str]]] = {}
    columns = (identity[name].to_pylist() for name in ("split", "record_id", "patient_id"))
    for split, record_id, patient_id in zip(*columns, strict=True):
        of_split.setdefault(split, []).append((record_id, patient_id))
    lists: dict[str, Iterable[str]] = {split: [record for record, _ in pairs] for split, pairs in of_split.items()}
    for share, ids in few_shot_subsets(of_split.get("train", [])).items():
        lists |= {few_shot_name(share): ids} if ids else {}
    return write_id_lists(folder, lists)


def _refuse_shared_patients(identity: pa.Table) -> None:
    known = identity.filter(identity["patient_id_known"])
    shared = known.group_by("patient_id").aggregate([("split", "count_distinct")])
    shared = shared.filter(pc.greater(shared["split_count_distinct"], 1))
    if shared.num_rows:
        raise AssertionError(
            f"{shared.num_rows} patients stand in more than one split, for example {shared['patient_id'][0].as_py()}; "
            "the cohort's plan must keep each patient in one"
        )


def _duplicates(identity: pa.Table) -> dict[str, BuildReason]:
    """By record id: the records whose samples stand under another record id too."""
    groups = identity.group_by("waveform_sha256").aggregate(
        [("record_id", "count_distinct"), ("split", "count_distinct")]
    )
    groups = groups.filter(pc.greater(groups["record_id_count_distinct"], 1))
    across = dict(zip(groups["waveform_sha256"].to_pylist(), groups["split_count_distinct"].to_pylist(), strict=True))
    hit = identity.filter(pc.is_in(identity["waveform_sha256"], value_set=groups["waveform_sha256"].combine_chunks()))
    return {
        record_id: BuildReason.duplicate_waveform_across_splits if across[sha] > 1 else BuildReason.duplicate_waveform
        for record_id, sha in zip(hit["record_id"].to_pylist(), hit["waveform_sha256"].to_pylist(), strict=True)
    }


def _shard_audit(results: Sequence[ShardResult], parts: Path) -> Iterator[AuditRow]:
    for result in results:
        for row in pq.read_table(ShardFiles(parts, result.split, result.index).audit).to_pylist():
            yield AuditRow(**row | {"outcome": Outcome(row["outcome"]), "reasons": tuple(row["reasons"])})


def _flag_duplicates(rows: Iterator[AuditRow], duplicates: Mapping[str, BuildReason]) -> Iterator[AuditRow]:
    for row in rows:
        if row.outcome != Outcome.dropped and row.record_id in duplicates:
            reasons = (*row.reasons, duplicates[row.record_id].value)
            yield replace(row, outcome=Outcome.flagged, reasons=reasons)
        else:
            yield row


def _nothing_kept(facts: CohortFacts, plan: Plan, results: Sequence[ShardResult], parts: Path) -> str:
    rows = chain(plan.dropped, _shard_audit(results, parts))
    reasons = settle(rows, plan.source_rows)["reasons"].get("dropped", {})
    told = ", ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1])) or "none"
    return (
        f"{facts.name}: none of {plan.source_rows} source records became an ECG (reasons: {told}). "
        "Is this the cohort's folder, with its signal files?"
    )


def _move_shards(name: str, split: str, shards: Sequence[ShardResult], parts: Path, folder: Path) -> None:
    for (path, _), shard in zip(_shard_files(name, split, shards, folder), shards, strict=True):
        os.replace(ShardFiles(parts, shard.split, shard.index).data, path)


def _shard_files(name: str, split: str, shards: Sequence[ShardResult], folder: Path) -> Iterator[tuple[Path, int]]:
    """Where the shards of a split end, and how many ECGs each holds."""
    for i, shard in enumerate(shards):
        yield folder / f"{name}-{split}.array_record-{i:05d}-of-{len(shards):05d}", shard.records


def _write_tfds_metadata(facts: CohortFacts, by_split: Mapping[str, Sequence[ShardResult]], folder: Path) -> None:
    import tensorflow_datasets as tfds

    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.records for shard in shards],
                num_bytes=sum(shard.bytes for shard in shards),
            )
            for split, shards in by_split.items()
        ],
        version=facts.version,
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
        description=facts.description,
        citation=facts.citation,
        homepage=facts.homepage,
        license=facts.licence,
        disable_shuffling=True,
    )


def _cohort_json(
    facts: CohortFacts,
    options: Mapping[str, Any],
    plan: Plan,
    results: Sequence[ShardResult],
    identity: pa.Table,
    audit: Mapping[str, Any],
    list_sums: Mapping[str, str],
) -> dict[str, Any]:
    digests = "\n".join(f"{r.split} {r.index} {r.digest}" for r in results if r.records)
    records = {split: sum(shard.records for shard in shards) for split, shards in _by_split(results).items()}
    counts = {}
    for split in records:
        members = identity.filter(pc.equal(identity["split"], split))
        known = members.filter(members["patient_id_known"])
        counts[split] = {
            "patients": pc.count_distinct(known["patient_id"]).as_py(),
            "records_of_unknown_patients": members.num_rows - known.num_rows,
            **audit["splits"][split],
        }
    return {
        "name": facts.name,
        "version": facts.version,
        "access": facts.access,
        "licence": facts.licence,
        "homepage": facts.homepage,
        "citation": facts.citation,
        "description": facts.description,
        "label_vocabulary": facts.label_vocabulary,
        "schema_version": SCHEMA_VERSION,
        "options": dict(options),
        "source_rows": plan.source_rows,
        "source_hash": plan.source_hash,
        "build_id": build_id(facts, options, plan),
        "fingerprint": hashlib.sha256(digests.encode()).hexdigest(),
        "splits": records,
        "split_rule": plan.split_rule.as_json(),
        "split_lists_sha256": dict(list_sums),
        "counts": counts,
        "outcomes": audit["outcomes"],
        "reasons": audit["reasons"],
        "versions": {name: version(name) for name in _RECORDED_VERSIONS},
    }


def build_id(facts: CohortFacts, options: Mapping[str, Any], plan: Plan) -> str:
    """SHA-256 of everything that decides a build's content: an interrupted build continues only as the same one."""
    identity = {
        "name": facts.name,
        "version": facts.version,
        "options": dict(options),
        "schema_version": SCHEMA_VERSION,
        "source_hash": plan.source_hash,
        "source_rows": plan.source_rows,
        "code_version": version("ecgclip_jax"),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
