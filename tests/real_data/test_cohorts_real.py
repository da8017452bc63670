"""Builders on the real records at hand: nothing sound is dropped, and fields are what the files and tables say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat
from support.outcomes import outcomes
from support.real_sources import (
    CPSC2018_COLUMNS,
    CPSC2018_NAMES,
    REAL_SOURCES,
    code15,
    cpsc2018,
    cpsc2018_reference,
    ludb,
    sph,
    table,
)

from ecgclip_jax.cli.main import main
from ecgclip_jax.text.code_tables import code_rows
from ecgclip_jax.text.shared_records import shared_records
from tfds_builders.challenge2021.cohort import Challenge2021
from tfds_builders.code15.cohort import Code15
from tfds_builders.common.cohort import SourceOutcome
from tfds_builders.cpsc2018.cohort import Cpsc2018
from tfds_builders.cpsc2021.cohort import Cpsc2021
from tfds_builders.ludb.cohort import Ludb
from tfds_builders.mitdb.cohort import Mitdb
from tfds_builders.ptb.cohort import Ptb
from tfds_builders.ptb_xl.cohort import PtbXl
from tfds_builders.sph.cohort import Sph

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def challenge(shared_data: Path) -> dict[str, SourceOutcome]:
    return outcomes(Challenge2021(shared_data / "challenge-2021"))


def test_every_challenge_record_is_kept_with_its_codes(challenge: dict[str, SourceOutcome], shared_data: Path) -> None:
    headers = {path.stem: path for path in (shared_data / "challenge-2021" / "training").rglob("*.hea")}
    assert set(challenge) == set(headers)
    assert len(headers) == 99
    sites = Counter(outcome.records[0].site for outcome in challenge.values())
    assert sites == Counter(path.parts[-3] for path in headers.values())
    known = set(code_rows("snomed"))
    for name, outcome in challenge.items():
        (dx,) = [
            line.split(":")[1] for line in headers[name].read_text().splitlines() if line.startswith(("#Dx", "# Dx"))
        ]
        assert list(outcome.records[0].label_codes) == [code.strip() for code in dx.split(",")]
        assert set(outcome.records[0].label_codes) <= known


def test_challenge_samples_are_the_files(challenge: dict[str, SourceOutcome], shared_data: Path) -> None:
    for path in sorted((shared_data / "challenge-2021" / "training").rglob("*.mat"))[::5]:
        expected = loadmat(path)["val"].T[:5000]  # 1000 units per mV in all of them
        stored = challenge[path.stem].records[0].ecg_uv
        np.testing.assert_array_equal(stored[: len(expected)], expected)


def test_ids_translate_between_cohorts(challenge: dict[str, SourceOutcome], shared_data: Path) -> None:
    (rule,) = [row for row in shared_records() if (row.cohort, row.other) == ("challenge2021", "ptb_xl")]
    cohort = PtbXl(shared_data / "ptbxl")
    rows = {row["ecg_id"]: row for shard in cohort.plan().shards for row in shard.payload.to_pylist()}
    pairs = [(name, rows[str(rule.other_id(name))]) for name in challenge if str(rule.other_id(name)) in rows]
    assert pairs
    for name, row in pairs:
        signal_uv = cohort.read(row).signal_uv
        np.testing.assert_array_equal(challenge[name].records[0].ecg_uv, np.rint(signal_uv).astype(np.int16))


def test_structs_of_cpsc2018(shared_data: Path, tmp_path: Path) -> None:
    by_name = {row["Recording"]: row for row in cpsc2018_reference(shared_data)}
    cpsc2018(shared_data, tmp_path)
    found = outcomes(Cpsc2018(tmp_path))
    for name in CPSC2018_NAMES:
        record = found[name].records[0]
        expected = loadmat(tmp_path / "TrainingSet" / f"{name}.mat")["ECG"]["data"][0, 0].T[:5000] * 1000
        assert np.abs(record.ecg_uv[: len(expected)] - expected).max() <= 0.5001
        labels = [by_name[name][column] for column in CPSC2018_COLUMNS[1:]]
        assert record.label_codes == tuple(label.removesuffix(".0") for label in labels if label)
        assert record.age_years > 0
        assert record.sex in ("male", "female")


def test_recordings_of_cpsc2021(shared_data: Path) -> None:
    found = outcomes(Cpsc2021(shared_data / "cpsc2021"))
    assert len(found) == 10
    for name, outcome in found.items():
        assert {record.patient_id for record in outcome.records} == {name.split("_")[1]}
        beats = sum(len(record.annotation_codes) for record in outcome.records)
        seconds = 10 * len(outcome.records)
        assert 0.5 < beats / seconds < 4, "beats per second, over all windows"
    rhythms = {code for o in found.values() for r in o.records for code in r.annotation_codes if code.startswith("(")}
    assert "(AFIB" in rhythms


def test_waves_of_ludb_stand_on_the_signal(shared_data: Path, tmp_path: Path) -> None:
    found = outcomes(Ludb(ludb(shared_data, tmp_path)))
    assert len(found) == 10
    above = []
    for outcome in found.values():
        (record,) = outcome.records
        counts = Counter(record.annotation_codes)
        assert set(counts) | {"p"} == set("(pNt)"), "in atrial fibrillation there is no P wave"
        assert 100 < counts["p"] + counts["N"] + counts["t"] < 1000
        assert record.report_language == "en"
        marks = zip(record.annotation_codes, record.annotation_samples, record.annotation_leads, strict=True)
        for code, sample, lead in marks:
            if code == "N":
                column = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"].index(lead)
                signal = np.abs(record.ecg_uv[:, column] - np.median(record.ecg_uv[:, column]))
                above.append((signal < signal[sample]).mean())
    assert np.median(above) > 0.97, "R peaks are among the largest 3 % of their own lead"


def test_the_fifteen_leads_of_ptb(shared_data: Path) -> None:
    (outcome,) = outcomes(Ptb(shared_data / "ptbdb")).values()
    record = outcome.records[0]
    assert (record.patient_id, record.age_years, record.sex) == ("patient001", 81.0, "female")
    assert record.label_codes[0] == "Myocardial infarction"
    assert (record.diabetes, record.smoker, record.systolic_mmhg) == (1.0, 0.0, 140.0)
    assert record.n_windows == 4
    assert record.lead_present.all()


def test_half_an_hour_of_mitdb(shared_data: Path) -> None:
    (outcome,) = outcomes(Mitdb(shared_data / "mitdb", modified_ii_as_ii=True)).values()
    assert len(outcome.records) == outcome.records[0].n_windows == 181
    codes = Counter(code for record in outcome.records for code in record.annotation_codes)
    assert (codes["N"], codes["A"], codes["V"], codes["(N"]) == (2239, 33, 1, 1), "the database directory's counts"
    assert (outcome.records[0].age_years, outcome.records[0].sex) == (69.0, "male")


def test_recordings_of_sph(shared_data: Path, tmp_path: Path) -> None:
    rows = table(shared_data / "sph" / "metadata_with_intervals.csv")
    found = outcomes(Sph(sph(shared_data, tmp_path)))
    assert len(found) == 10
    known = set(code_rows("aha"))
    for row in rows[:10]:
        record = found[row["ECG_ID"]].records[0]
        assert (record.patient_id, record.age_years) == (row["Patient_ID"], float(row["Age"]))
        assert ";".join(record.label_codes) == row["AHA_Code"]
        assert {code.split("+")[0] for code in record.label_codes} <= known
        with h5py.File(tmp_path / "records" / f"{row['ECG_ID']}.h5") as file:
            expected = file["ecg"][:].T[:5000].astype(np.float64) * 1000
        assert np.abs(record.ecg_uv[: len(expected)] - expected).max() <= 0.51
        assert "einthoven_residual" not in record.quality_flags


def test_exams_of_code15(shared_data: Path, tmp_path: Path) -> None:
    found = outcomes(Code15(code15(shared_data, tmp_path)))
    assert len(found) == 10
    for row in table(shared_data / "code15" / "meta.csv"):
        outcome = found[row["exam_id"]]
        (record,) = outcome.records
        labels = [name for name in ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "normal_ecg") if row[name] == "True"]
        assert list(record.label_codes) == labels
        assert record.patient_id == row["patient_id"]
        assert record.sex == ("male" if row["is_male"] == "True" else "female")
        stated_s = int(row["sample_size"]) / 400
        present_s = (record.ecg_uv != -32768).any(axis=1).sum() / 500
        assert present_s == pytest.approx(min(stated_s, 10), abs=0.1), "what ECG-FM's authors found without the zeros"


@pytest.mark.parametrize("name", REAL_SOURCES)
def test_prepare_runs_on_real_records(name: str, shared_data: Path, tmp_path: Path) -> None:
    source = REAL_SOURCES[name](shared_data, tmp_path / "source")
    assert main(["prepare", name, "--source", str(source), "--data-dir", str(tmp_path), "--workers", "0"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/*/cohort.json"))
    facts, audit = (json.loads((folder / file).read_text()) for file in ("cohort.json", "audit.json"))
    assert sum(facts["outcomes"].values()) == facts["source_rows"] == audit["source_rows"] > 0
    assert facts["outcomes"]["kept"] + facts["outcomes"]["flagged"] > 0
    assert facts["reasons"].get("dropped", {}).keys() <= {"empty", "file_missing"}
    card = (folder / "card.html").read_text()
    assert f"{name} {facts['version']}" in card
    assert "<svg" in card, "labels, people and signals are drawn"
