"""The synthetic cohort: hospitals and patients where they belong, labels of truth, splits that stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgclip_jax.signal.synthesis import CLINICAL, DEFAULT_WORLD, FINDINGS, TARGETS, synthesize_ecgs
from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.synthetic_ecg.cohort import WORLDS, SyntheticEcg

SPLITS = ("train", "validation", "test", "external")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SyntheticEcg(size=120), tmp_path_factory.mktemp("data"), workers=0).folder


def _records(folder: Path) -> pa.Table:
    tables = (
        t.append_column("split", pa.array([s] * len(t)))
        for s in SPLITS
        for t in [pq.read_table(folder / f"records-{s}.parquet")]
    )
    return pa.concat_tables(tables)


def test_hospital_c_is_external_and_patients_keep_to_a_split(folder: Path) -> None:
    rows = _records(folder).to_pylist()
    assert {row["site"] for row in rows if row["split"] == "external"} == {"C"}
    assert {row["site"] for row in rows if row["split"] != "external"} == {"A", "B"}
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    assert 90 <= len(rows) <= 150
    assert len({row["record_id"] for row in rows}) == len(rows)


def test_records_are_what_the_generator_draws(folder: Path) -> None:
    rows = {row["record_id"]: row for row in _records(folder).to_pylist()}
    hospital = DEFAULT_WORLD.hospital("B")
    batch = synthesize_ecgs(DEFAULT_WORLD, hospital, [3, 8], seed=0)
    for i, record_id in enumerate(batch.record_id):
        row = rows[record_id]
        truth = {FINDINGS[k] for k in range(len(FINDINGS)) if batch.findings[i, k]}
        truth |= {name for name in TARGETS if batch.targets[name][i]}
        assert set(row["label_codes"]) == truth
        assert row["mains_hz"] == hospital.mains_hz
        assert row["device"] == batch.device[i]
        measured = dict(zip(row["measurement_names"], row["measurement_values"], strict=True))
        assert measured == {name: v[i] for name, v in batch.measurements.items() if not np.isnan(v[i])}
        source = json.loads(row["source_row"])
        assert set(source["targets"]) == set(TARGETS)
        assert set(source["latent"]) == set(batch.latent)
        for name in CLINICAL:
            np.testing.assert_equal(row[name], float(batch.clinical[name][i]))


def test_no_target_is_named_in_a_report(folder: Path) -> None:
    for row in _records(folder).to_pylist():
        assert row["report_raw"]
        assert not any(name in row["report_raw"].lower().replace(" ", "_") for name in TARGETS)


def test_nothing_clinical_is_in_a_report(folder: Path) -> None:
    """Neither in words nor as a number with its unit; "rhythm" and "ms" stand in reports, "mmHg" and "kg" must not."""
    words = re.compile(
        r"smok|tobacco|diabet|blood pressure|mm\s?hg|cholesterol|hdl|mmol|height|\bcm\b|weight|\bkg\b"
        r"|follow.?up|event|surviv|risk",
        re.IGNORECASE,
    )
    for row in _records(folder).to_pylist():
        assert not words.search(row["report_raw"]), row["report_raw"]


def test_a_larger_cohort_moves_no_patient() -> None:
    def split_of(size: int) -> dict[tuple[str, int], str]:
        parts = SyntheticEcg(size=size)._patients().items()
        return {
            (p.hospital, patient): split for split, of_split in parts for p in of_split for patient in p.patient_ids
        }

    small, large = split_of(200), split_of(2000)
    assert small.items() <= large.items()


def test_the_plan_counts_every_ecg_once() -> None:
    plan = SyntheticEcg(size=1500).plan()
    assert len(plan.shards) > len(SPLITS)
    assert sum(shard.source_rows for shard in plan.shards) == plan.source_rows
    patients = [(p.hospital, i) for shard in plan.shards for p in shard.payload[1] for i in p.patient_ids]
    assert len(set(patients)) == len(patients)


@pytest.mark.parametrize("world", [name for name in WORLDS if name != "default"])
def test_a_null_world_has_its_own_name(world: str) -> None:
    cohort = SyntheticEcg(size=100, world=world)
    assert cohort.facts.name == f"synthetic_ecg_{world}"
    assert cohort.plan().source_hash != SyntheticEcg(size=100).plan().source_hash


@pytest.mark.parametrize("options", [{"size": 10}, {"seed": -1}, {"world": "flat"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(BuildError, match=next(iter(options))):
        SyntheticEcg(**options)
