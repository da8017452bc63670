"""The index of a run: who is selected, whose report is whose, and that a changed cohort is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.index import (
    RECORDS_FILE,
    SUMMARY_FILE,
    RunIndexError,
    build_index,
    load_index,
    shuffle_between_patients,
)
from ecgclip_jax.spec.experiment import DataSpec, Source

TINY, OTHER = Source(cohort="tiny"), Source(cohort="other")


@pytest.fixture
def odd_cohort(tmp_path: Path) -> Path:
    """Windows, missing and short reports, unknown patients, and one patient id used in another cohort too."""
    records = [
        tiny_record(0, report="Sinus rhythm."),
        tiny_record(1, report="Sinus rhythm.", n_windows=2),
        tiny_record(2, record_id="r0001", report="Sinus rhythm.", window_index=1, n_windows=2, patient_id="p0000"),
        tiny_record(3, report=""),
        tiny_record(4, report="Normal"),
        tiny_record(5, report="Atrial fibrillation.", patient_id="", patient_id_known=False),
        tiny_record(6, report="Normal ECG.", patient_id="", patient_id_known=False),
    ]
    write_cohort(tmp_path, {"train": records, "validation": [tiny_record(9)]})
    write_cohort(tmp_path, {"train": [tiny_record(0)]}, name="other", access="registered")
    return tmp_path


def test_selection_counts_add_up(odd_cohort: Path) -> None:
    index = build_index(DataSpec(sources=(TINY,), min_report_words=2), odd_cohort, seed=0)
    assert index.column("record_id") == ["r0000", "r0001", "r0005", "r0006"]
    assert index.left_out == ({"window_not_first": 1, "report_missing": 1, "report_too_short": 1},)
    every = build_index(DataSpec(sources=(TINY,), windows="all", min_report_words=0), odd_cohort, seed=0)
    assert len(every) == 7
    assert every.left_out == ({},)


def test_texts_and_patients_are_sorted_and_numbered(odd_cohort: Path) -> None:
    index = build_index(DataSpec(sources=(TINY, OTHER), windows="all"), odd_cohort, seed=0)
    assert index.texts == tuple(
        sorted({"Sinus rhythm.", "Normal", "Atrial fibrillation.", "Normal ECG.", "Sinus rhythm, variant 0."})
    )
    assert [index.texts[row] for row in index.text_row] == index.column("report_clean")
    # Unknown patients have a row each; p0000 of `other` is another patient than p0000 of `tiny`.
    assert index.patients == (
        ("other", "p0000", ""),
        ("tiny", "", "r0005"),
        ("tiny", "", "r0006"),
        ("tiny", "p0000", ""),
        ("tiny", "p0002", ""),
    )
    assert index.patient_row.tolist() == [3, 3, 3, 4, 1, 2, 0]
    assert index.access == "registered"
    assert index.sizes == (6, 1)


def test_two_splits_of_a_cohort_share_their_patients(tiny_data_dir: Path) -> None:
    index = build_index(DataSpec(sources=(TINY, Source(cohort="tiny", split="validation"))), tiny_data_dir, seed=0)
    assert len(index) == 60
    assert len(index.patients) == 30


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataSpec(sources=(TINY, TINY)), "names a split twice"),
        (DataSpec(sources=(TINY,), min_report_words=50), "no record of tiny/1.0.0/train is left.*report_too_short"),
    ],
)
def test_selections_without_sense_are_named(tiny_data_dir: Path, data: DataSpec, message: str) -> None:
    with pytest.raises(RunIndexError, match=message):
        build_index(data, tiny_data_dir, seed=0)


def test_a_saved_index_comes_back_and_holds_no_text_and_no_id(tiny_data_dir: Path, tmp_path: Path) -> None:
    data = DataSpec(sources=(TINY, OTHER), null_world="shuffled_reports")
    index = build_index(data, tiny_data_dir, seed=4)
    index.save(tmp_path)
    loaded = load_index(tmp_path, data, tiny_data_dir, seed=4)
    assert loaded.fingerprint == index.fingerprint
    assert loaded.texts == index.texts
    np.testing.assert_array_equal(loaded.text_row, index.text_row)
    np.testing.assert_array_equal(loaded.patient_row, index.patient_row)
    assert all(str(kind) == "int32" for kind in pq.read_schema(tmp_path / RECORDS_FILE).types)
    assert "p0001" not in (tmp_path / SUMMARY_FILE).read_text()


def test_a_resume_notices_changed_data_and_takes_the_versions_of_the_run(tmp_path: Path) -> None:
    data, run = DataSpec(sources=(TINY,)), tmp_path / "run"
    write_cohort(tmp_path / "before", {"train": [tiny_record(n) for n in range(6)]})
    build_index(data, tmp_path / "before", seed=0).save(run)
    write_cohort(tmp_path / "before", {"train": [tiny_record(7)]}, version="2.0.0")
    assert load_index(run, data, tmp_path / "before", seed=0).cohorts[0].version == "1.0.0"
    write_cohort(tmp_path / "after", {"train": [tiny_record(n, report="Paced rhythm.") for n in range(6)]})
    with pytest.raises(RunIndexError, match=r"not what it was \(changed: cohorts, texts\)"):
        load_index(run, data, tmp_path / "after", seed=0)
    with pytest.raises(RunIndexError, match=r"changed: seed"):
        load_index(run, data, tmp_path / "before", seed=1)
    with pytest.raises(RunIndexError, match="no saved index"):
        load_index(tmp_path / "nowhere", data, tmp_path / "before", seed=0)


def test_altered_row_numbers_are_noticed(tiny_data_dir: Path, tmp_path: Path) -> None:
    data = DataSpec(sources=(TINY,))
    build_index(data, tiny_data_dir, seed=0).save(tmp_path)
    table = pq.read_table(tmp_path / RECORDS_FILE)
    pq.write_table(table.take(list(range(49, -1, -1))), tmp_path / RECORDS_FILE)
    with pytest.raises(RunIndexError, match="row numbers were altered"):
        load_index(tmp_path, data, tiny_data_dir, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_reports_leave_no_report_with_its_patient(tiny_data_dir: Path, seed: int) -> None:
    plain = build_index(DataSpec(sources=(TINY, OTHER)), tiny_data_dir, seed)
    null = build_index(DataSpec(sources=(TINY, OTHER), null_world="shuffled_reports"), tiny_data_dir, seed)
    assert sorted(null.report_row.tolist()) == list(range(70)), "every report is used once"
    assert (plain.patient_row[null.report_row] != plain.patient_row).all()
    reports = plain.column("report_clean")
    assert [null.texts[t] for t in null.text_row] == [reports[r] for r in null.report_row]
    assert null.fingerprint != plain.fingerprint
    np.testing.assert_array_equal(null.patient_row, plain.patient_row)


def test_shuffling_copes_with_patients_of_all_sizes_up_to_half() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        patient = rng.integers(0, 8, 40).astype(np.int32)
        if 2 * np.bincount(patient).max() > 40:
            continue
        moved = shuffle_between_patients(patient, int(rng.integers(1000)))
        assert sorted(moved.tolist()) == list(range(40))
        assert (patient[moved] != patient).all()
    half = np.asarray([0, 0, 1, 2], np.int32)
    assert set(shuffle_between_patients(half, 0)[:2].tolist()) == {2, 3}
    with pytest.raises(RunIndexError, match="one patient has 3 of 5 records"):
        shuffle_between_patients(np.asarray([0, 0, 0, 1, 2], np.int32), 0)
