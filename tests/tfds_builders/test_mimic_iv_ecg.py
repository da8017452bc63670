"""MIMIC-IV-ECG on look-alikes: joins by id, both layouts, what is credentialed, and a killed build that goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

import tfds_builders.common.build as build_module
import tfds_builders.common.table_cohort as table_cohort
from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.dummy import write_csv
from tfds_builders.mimic_iv_ecg.cohort import MimicIvEcg
from tfds_builders.mimic_iv_ecg.make_dummy_data import LEADS, Study, write_lookalike
from tfds_builders.mimic_iv_ecg.tables import nearest, seconds

N = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    write_lookalike(folder, N)
    return folder


@pytest.fixture(scope="module")
def interrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small form of `make proofs mimic_lookalike`: stopped in the third shard, built to the end by a second run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_cohort, "rows_per_shard", lambda rows: 10)
        data_dir, written = tmp_path_factory.mktemp("data"), build_module.write_shard
        calls: list[int] = []

        def killed(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return written(*arguments)

        patch.setattr(build_module, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            build(MimicIvEcg(source), data_dir, workers=0)
        parts = data_dir / "mimic_iv_ecg" / "1.0.0.incomplete" / "parts"
        before = {path: path.stat().st_mtime_ns for path in parts.glob("*.array_record")}
        assert len(before) == 2
        resumed: list[Path] = []

        def spied(cohort: Any, shard: Any, folder: Path) -> Any:
            resumed.append(folder)
            return written(cohort, shard, folder)

        patch.setattr(build_module, "write_shard", spied)
        prepared = build(MimicIvEcg(source), data_dir, workers=0)
        assert len(resumed) == 4, "the two finished shards are not written again"
        return prepared.folder


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    tables = (pq.read_table(path) for path in sorted(folder.glob("records-*.parquet")))
    return {row["record_id"]: row for table in tables for row in table.to_pylist()}


def test_nothing_is_lost_by_an_interruption(interrupted: Path) -> None:
    audit = json.loads((interrupted / "audit.json").read_text())
    assert audit["outcomes"] == {"kept": N - 3, "flagged": 3, "dropped": 0}
    assert audit["reasons"]["flagged"] == {"missing_samples": 2, "report_empty": 1}
    assert set(_rows(interrupted)) == {Study(i).study_id for i in range(N)}


def test_reports_and_measurements_are_joined_by_study(interrupted: Path) -> None:
    rows = _rows(interrupted)
    for number in range(N):
        study, row = Study(number), rows[Study(number).study_id]
        assert row["report_raw"] == ". ".join(cell for cell in study.report if cell)
        measured = dict(zip(row["measurement_names"], row["measurement_values"], strict=True))
        assert measured.get("rr_interval_ms") == (659 + number % 7 if study.is_measured else None)
        assert len(measured) == (9 if study.is_measured else 0), "29999 is not a number of milliseconds"
        assert (row["patient_id"], row["patient_id_known"]) == (study.subject_id, True)
        assert (row["band_high_hz"], row["mains_hz"], row["age_years"]) == (
            150.0,
            60.0,
            pytest.approx(np.nan, nan_ok=True),
        )


def test_leads_are_resolved_by_name(interrupted: Path, source: Path) -> None:
    record = tfds.builder_from_directory(str(interrupted)).as_data_source(split="train")[0]
    rows = _rows(interrupted)
    path = json.loads(rows[record["record_id"].decode()]["source_row"])["path"]
    samples = np.fromfile(source / f"{path}.dat", "<i2").reshape(5000, 12)
    assert LEADS[4:6] == ("aVF", "aVL"), "the cohort's own order"
    np.testing.assert_array_equal(record["ecg_uv"][:, 4], 5 * samples[:, 5])
    np.testing.assert_array_equal(record["ecg_uv"][:, 5], 5 * samples[:, 4])


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten studies of two subjects in the demo's layout, listed as 1.0 lists them, with all tables of other projects."""
    source = tmp_path_factory.mktemp("joined")
    studies = write_lookalike(source, 10, layout="demo")
    write_csv(source / "record_list.csv", list(Study(0).record_row()), [Study(s.number).record_row() for s in studies])
    icd = [
        {
            "study_id": study.study_id,
            "all_diag_all": "['I4891', 'I10', 'I10']" if study.number != 4 else "import os",
            "gender": "M",
            "age": "40.0",
            "strat_fold": "19" if study.number >= 5 else "3",
        }
        for study in reversed(studies)
    ]
    write_csv(source / "records_w_diag_icd10.csv", ("study_id", "all_diag_all", "gender", "age", "strat_fold"), icd)
    anchors = [("91", "2110"), ("60", "2110")]
    patients = [
        {"subject_id": studies[5 * i].subject_id, "gender": "F", "anchor_age": age, "anchor_year": year}
        for i, (age, year) in enumerate(anchors)
    ]
    write_csv(source / "patients.csv", ("subject_id", "gender", "anchor_age", "anchor_year"), patients)
    ecg_time = studies[5].record_row()["ecg_time"]
    echo = [
        (studies[5].subject_id, ecg_time, "stress", "lvef", "11"),
        (studies[5].subject_id, ecg_time.replace("07-23", "07-25"), "tte", "lvef", "35"),
        (studies[5].subject_id, ecg_time.replace("07-23", "07-20"), "tte", "lvef", "55"),
        (studies[5].subject_id, ecg_time, "tte", "lvot_vti", "20"),
        (studies[0].subject_id, "2109-01-01 00:00:00", "tte", "lvef", "44"),
    ]
    columns = ("subject_id", "measurement_datetime", "test_type", "measurement", "result")
    write_csv(source / "structured-measurement.csv", columns, [dict(zip(columns, row, strict=True)) for row in echo])
    return source


def test_tables_of_other_projects_are_joined_by_id(joined: Path, tmp_path: Path) -> None:
    prepared = build(MimicIvEcg(joined), tmp_path, workers=0)
    assert prepared.cohort["access"] == "credentialed"
    assert "Credentialed" in prepared.cohort["licence"]
    assert prepared.cohort["splits"] == {"train": 4, "test": 5}
    assert prepared.cohort["split_rule"]["kind"] == "official"
    assert prepared.cohort["reasons"]["dropped"] == {"labels_malformed": 1}
    rows = _rows(prepared.folder)
    old, other = rows[Study(0).study_id], rows[Study(5).study_id]
    assert (old["age_years"], old["age_censored"], old["sex"]) == (90.0, True, "female")
    assert (other["age_years"], other["age_censored"]) == (65.0, False), "anchor age and the years since"
    assert old["label_codes"] == ["I4891", "I10"]
    measured = dict(zip(other["measurement_names"], other["measurement_values"], strict=True))
    assert (measured["lvef_percent"], measured["echo_gap_days"]) == (35.0, 2.0)
    assert "lvef_percent" not in old["measurement_names"], "an echo of a year before"


def test_the_nearest_echo() -> None:
    day = 86400.0
    studies = [(0.0, "a"), (10 * day, "b"), (12 * day, "c")]
    assert nearest(studies, 5 * day, 30) == ("a", "-5.000"), "of two as near the earlier"
    assert nearest(studies, 11.5 * day, 30) == ("c", "0.500")
    assert nearest(studies, -31 * day, 30) == nearest([], 0.0, 30) == nearest(studies, None, 30) == ("", "")
    assert nearest(studies, 99 * day, 100) == ("c", "-87.000")
    assert seconds("2180-07-23") is not None
    assert seconds("yesterday") is None


def _faulty(source: Path) -> Iterator[tuple[str, str]]:
    machine = (source / "machine_measurements.csv").read_text()
    first = machine.splitlines(keepends=True)[1]
    yield machine + first, "repeated"
    yield machine.replace(first, "1" + first), "other subjects"
    yield machine.replace("report_17", "report_x"), "lacks the column"


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_lookalike(tmp_path, 2)
    table = tmp_path / "machine_measurements.csv"
    for content, message in list(_faulty(tmp_path)):
        table.write_text(content)
        with pytest.raises(BuildError, match=message):
            MimicIvEcg(tmp_path).plan()
    table.unlink()
    with pytest.raises(BuildError, match=r"lacks machine_measurements.csv.*physionet.org.*--no-machine-measurements"):
        MimicIvEcg(tmp_path).plan()
    assert MimicIvEcg(tmp_path, machine_measurements=False).plan().source_rows == 2
