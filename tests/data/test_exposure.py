"""What a run has seen: found again in an evaluation set, and unreadable without the key above access class open."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.exposure import EXPOSURE_FILE, find_overlap, write_exposure
from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.sources import open_cohort
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.pseudonyms import KEY_FILE


def prepare(data_dir: Path, access: str) -> None:
    """Test rows: 2 was trained on under another id; 20 is a new ECG of a trained patient; 30 and 31 are new."""
    train = [tiny_record(n) for n in range(4)]
    unknown = {"patient_id": "", "patient_id_known": False}
    train.append(tiny_record(4, **unknown))
    test = [
        tiny_record(2, record_id="copy", patient_id="elsewhere"),
        tiny_record(20, patient_id="p0001"),
        tiny_record(30),
        tiny_record(31, **unknown),
    ]
    write_cohort(data_dir, {"train": train, "test": test}, access=access)
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), data_dir, seed=0)
    write_exposure(index, data_dir)


@pytest.mark.parametrize("access", ["open", "credentialed"])
def test_overlap_is_found_by_waveform_and_by_patient(tmp_path: Path, access: str) -> None:
    prepare(tmp_path, access)
    overlap = find_overlap(tmp_path / EXPOSURE_FILE, open_cohort(tmp_path, Source(cohort="tiny", split="test")))
    np.testing.assert_array_equal(overlap.record, [True, False, False, False])
    np.testing.assert_array_equal(overlap.patient, [True, True, False, False])
    assert overlap.ids_checked
    itself = find_overlap(tmp_path / EXPOSURE_FILE, open_cohort(tmp_path, Source(cohort="tiny")))
    assert itself.record.all()


def test_open_cohorts_keep_their_ids(tmp_path: Path) -> None:
    prepare(tmp_path, "open")
    table = pq.read_table(tmp_path / EXPOSURE_FILE)
    assert table.column("record_id").to_pylist() == [f"r{n:04d}" for n in range(5)]
    assert table.column("patient_id").to_pylist() == ["p0000", "p0000", "p0001", "p0001", None]
    assert not (tmp_path / KEY_FILE).exists()


def test_above_open_ids_are_pseudonyms_and_the_key_stays_with_the_data(tmp_path: Path) -> None:
    prepare(tmp_path, "credentialed")
    table = pq.read_table(tmp_path / EXPOSURE_FILE)
    patients = table.column("patient_id").to_pylist()
    assert patients[0] == patients[1] != patients[2]
    assert patients[4] is None
    content = (tmp_path / EXPOSURE_FILE).read_bytes()
    assert b"r0001" not in content
    assert b"p0001" not in content
    key = tmp_path / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    write_exposure(build_index(DataSpec(sources=(Source(cohort="tiny"),)), tmp_path, seed=0), tmp_path)
    assert key.read_text() == before, "pseudonyms of one data directory agree between runs"
    assert pq.read_table(tmp_path / EXPOSURE_FILE).equals(table)


def test_without_the_key_only_waveforms_are_compared_and_that_is_said(tmp_path: Path) -> None:
    prepare(tmp_path, "private")
    (tmp_path / KEY_FILE).unlink()
    overlap = find_overlap(tmp_path / EXPOSURE_FILE, open_cohort(tmp_path, Source(cohort="tiny", split="test")))
    assert not overlap.ids_checked
    np.testing.assert_array_equal(overlap.record, [True, False, False, False])
    np.testing.assert_array_equal(overlap.patient, [True, False, False, False])


def test_equal_ids_of_different_cohorts_are_different_people(tmp_path: Path) -> None:
    prepare(tmp_path, "open")
    write_cohort(tmp_path, {"test": [tiny_record(40, record_id="r0001", patient_id="p0001")]}, name="other")
    overlap = find_overlap(tmp_path / EXPOSURE_FILE, open_cohort(tmp_path, Source(cohort="other", split="test")))
    assert not overlap.patient.any()


@pytest.mark.parametrize(
    ("seen", "seen_id", "tested", "tested_id", "access"),
    [
        ("challenge2021", "HR00007", "ptb_xl", "7", "open"),
        ("ptb_xl", "7", "challenge2021_ptb_xl", "HR00007", "open"),
        ("mimic_iv_ecg", "4001", "mimic_iv_ecg_echo", "4001", "credentialed"),
    ],
)
def test_published_copies_are_known_by_id(
    tmp_path: Path, seen: str, seen_id: str, tested: str, tested_id: str, access: str
) -> None:
    """The waveforms differ (units and lengths do by copy), the ids tell; and who was seen once was seen."""
    write_cohort(tmp_path, {"train": [tiny_record(1, record_id=seen_id)]}, name=seen, access=access)
    test = [
        tiny_record(2, record_id=tested_id, patient_id="a"),
        tiny_record(3, record_id="8", patient_id="a"),
        tiny_record(4, record_id="9", patient_id="b"),
    ]
    write_cohort(tmp_path, {"test": test}, name=tested, access=access)
    write_exposure(build_index(DataSpec(sources=(Source(cohort=seen),)), tmp_path, seed=0), tmp_path)
    overlap = find_overlap(tmp_path / EXPOSURE_FILE, open_cohort(tmp_path, Source(cohort=tested, split="test")))
    np.testing.assert_array_equal(overlap.record, [True, False, False])
    np.testing.assert_array_equal(overlap.patient, [True, True, False])
