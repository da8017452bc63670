"""The writer: TFDS reads what it writes, order and bytes never vary, interruptions cost a shard, faults are loud."""

from __future__ import annotations

import fcntl
import gc
import json
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

import tfds_builders.common.build as build_module
from ecgclip_jax.signal.storage import StoredECG
from tfds_builders.common.audit import AuditFault
from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError, Cohort, CohortFacts, Plan, Shard, SourceOutcome, rows_per_shard
from tfds_builders.common.records import Described, RowKey, audit_reasons, make_record
from tfds_builders.ptb_xl.cohort import FACTS, PtbXl
from tfds_builders.ptb_xl.make_dummy_data import write_dummy

FOLDS = (1, 9, 2, 10, 3, 9, 10, 4)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_dummy(folder, FOLDS)
    return folder


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PtbXl(source), tmp_path_factory.mktemp("data"), workers=0).folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def test_tfds_reads_what_the_parquet_sidecar_says(folder: Path) -> None:
    builder = tfds.builder_from_directory(str(folder))
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }
    for split in builder.info.splits:
        rows = pq.read_table(folder / f"records-{split}.parquet").to_pylist()
        for record, row in zip(builder.as_data_source(split=split), rows, strict=True):
            assert record["ecg_uv"].dtype == np.int16
            assert set(record) - set(row) == {"ecg_uv"}
            for column, value in row.items():
                read = _plain(record[column])
                assert read == value or (value != value and read != read), column


def test_splits_follow_the_folds(folder: Path) -> None:
    by_split = {"train": [1, 3, 5, 8], "validation": [2, 6], "test": [4, 7]}
    for split, ids in by_split.items():
        assert pq.read_table(folder / f"records-{split}.parquet")["record_id"].to_pylist() == [str(i) for i in ids]


def test_features_document_themselves(folder: Path) -> None:
    features = tfds.builder_from_directory(str(folder)).info.features
    assert features["report_raw"].doc.desc == "The report, verbatim."
    assert features["ecg_uv"].shape == (5000, 12)


def test_processes_change_no_byte(source: Path, folder: Path, tmp_path: Path) -> None:
    assert _bytes(build(PtbXl(source), tmp_path, workers=2).folder) == _bytes(folder)


def test_an_interrupted_build_goes_on(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard, written = build_module.write_shard, []

    def interrupted(cohort: Cohort, shard: Shard, parts: Path) -> Any:
        if shard.split == "test":
            raise KeyboardInterrupt
        written.append(shard.split)
        return write_shard(cohort, shard, parts)

    monkeypatch.setattr(build_module, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(PtbXl(source), tmp_path, workers=0)
    assert written == ["train", "validation"]
    assert not (tmp_path / "ptb_xl" / "1.0.3").exists()
    parts = tmp_path / "ptb_xl" / "1.0.3.incomplete" / "parts"
    (parts / "validation-00000.array_record").write_bytes(b"half")  # as if the disk had lost its end

    def counted(cohort: Cohort, shard: Shard, parts: Path) -> Any:
        written.append(shard.split)
        return write_shard(cohort, shard, parts)

    monkeypatch.setattr(build_module, "write_shard", counted)
    assert _bytes(build(PtbXl(source), tmp_path, workers=0).folder) == _bytes(folder)
    assert written == ["train", "validation", "validation", "test"]


def test_an_interrupted_build_of_another_kind_starts_anew(source: Path, folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "ptb_xl" / "1.0.3.incomplete" / "parts"
    parts.mkdir(parents=True)
    (parts / "build.json").write_text('{"build_id": "of another source"}')
    (parts / "train-00000.done.json").write_text("not even JSON")
    (parts.parent / "ptb_xl-train.array_record-00000-of-00009").write_bytes(b"left over")
    assert _bytes(build(PtbXl(source), tmp_path, workers=0).folder) == _bytes(folder)


def test_a_standing_dataset_is_found_or_protected(source: Path, tmp_path: Path) -> None:
    first = build(PtbXl(source), tmp_path, workers=0)
    assert not first.existed
    again = build(PtbXl(source), tmp_path, workers=0)
    assert again.existed
    assert again.cohort == first.cohort
    other = PtbXl(source, report_cleaning="merl")
    with pytest.raises(BuildError, match="--overwrite"):
        build(other, tmp_path, workers=0)
    replaced = build(other, tmp_path, workers=0, overwrite=True)
    assert replaced.cohort["options"]["report_cleaning"] == "merl"
    assert replaced.cohort["fingerprint"] != first.cohort["fingerprint"]
    assert [path.name for path in replaced.folder.parent.iterdir()] == ["1.0.3"]


def test_the_card_says_what_it_is(folder: Path) -> None:
    card = json.loads((folder / "cohort.json").read_text())
    assert (card["name"], card["version"], card["access"]) == ("ptb_xl", "1.0.3", "open")
    assert card["licence"] == FACTS.licence
    assert "@article" in card["citation"]
    assert card["counts"]["train"]["patients"] == 4
    assert str(folder.parent.parent) not in json.dumps(card)


def test_two_builds_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "ptb_xl").mkdir()
    with (tmp_path / "ptb_xl" / ".1.0.3.incomplete.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="another process"):
            build(PtbXl(source), tmp_path, workers=0)
    assert not build(PtbXl(source), tmp_path, workers=0).existed


def test_a_full_disk_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module, "write_shard", full)
    with pytest.raises(BuildError, match="No space left on device"):
        build(PtbXl(source), tmp_path, workers=0)


@dataclass(frozen=True)
class _Toy(Cohort):
    """Four ECGs in two shards; its faults are what the tests are about."""

    patients: tuple[str, str] = ("a", "b")
    promised_rows: int = 4

    @property
    def facts(self) -> CohortFacts:
        return replace(FACTS, name="toy")

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    def plan(self) -> Plan:
        return Plan((Shard("train", 0, 2, 0), Shard("test", 0, 2, 2)), (), self.promised_rows, "hash")

    def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
        patient = self.patients[shard.split == "test"]
        for number in range(shard.payload, shard.payload + shard.source_rows):
            yield _outcome(number, patient, shard.split)


def _outcome(number: int, patient: str, split: str) -> SourceOutcome:
    ecg_uv = np.full((5000, 12), number, np.int16)
    stored = StoredECG(
        record_id=str(number), ecg_uv=ecg_uv, window_index=0, n_windows=1, lead_present=np.ones(12, bool),
        n_saturated=0, rate_hz_source=500.0, resolution_uv=1.0, band_low_hz=None, band_high_hz=None, mains_hz=None,
        quality_flags=(),
    )  # fmt: skip
    key = RowKey(str(number), patient, split)
    described = Described(age_years=None, report="sinus rhythm", labels=())
    record = make_record(stored, key, described, "scp", "{}")
    return SourceOutcome(number, str(number), split, (record,), audit_reasons(key, described, (stored,)))


def test_a_patient_in_two_splits_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="more than one split"):
        build(_Toy(patients=("a", "a")), tmp_path, workers=0)


@pytest.mark.parametrize("promised_rows", [3, 5])
def test_counts_that_do_not_add_up_stop_the_build(tmp_path: Path, promised_rows: int) -> None:
    with pytest.raises(AuditFault):
        build(_Toy(promised_rows=promised_rows), tmp_path, workers=0)
    assert not (tmp_path / "toy" / "1.0.3").exists()


def test_one_waveform_at_a_time_is_in_memory(tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Watching(_Toy):
        def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
            for outcome in super().convert(shard):
                gc.collect()
                assert sum(ref() is not None for ref in alive) <= 1
                alive.append(weakref.ref(outcome.records[0].ecg_uv))
                yield outcome

    build(Watching(), tmp_path, workers=0)
    assert len(alive) == 4


def test_compression_changes_the_files_but_no_record(tmp_path: Path) -> None:
    smallest, fastest = (
        build(_Toy(compression=name), tmp_path / name, workers=0) for name in ("zstd:1", "uncompressed")
    )
    assert fastest.cohort["fingerprint"] == smallest.cohort["fingerprint"]
    assert fastest.cohort["options"] == {"compression": "uncompressed"}
    assert smallest.cohort["options"] == {}
    assert fastest.cohort["build_id"] != smallest.cohort["build_id"]
    sizes = [sum(p.stat().st_size for p in built.folder.glob("*.array_record*")) for built in (smallest, fastest)]
    assert sizes[1] > 4 * 120_000 > sizes[0]


def test_shards_depend_on_the_cohort_alone() -> None:
    assert rows_per_shard(10) == 256
    assert rows_per_shard(800_000) == 1563
    assert -(-800_000 // rows_per_shard(800_000)) <= 512
