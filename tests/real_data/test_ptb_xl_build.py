"""The 400 real PTB-XL records built at both rates, against the wfdb package and the official table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
import wfdb

from ecgclip_jax.cli.main import main
from ecgclip_jax.text.reports import clean_report, guess_language
from tfds_builders.common.build import build
from tfds_builders.ptb_xl.cohort import PtbXl

pytestmark = pytest.mark.real_data
SPLITS = ("train", "validation", "test")
LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def source(shared_data: Path) -> Path:
    return shared_data / "ptbxl"


@pytest.fixture(scope="module")
def rows(source: Path) -> dict[str, dict[str, str]]:
    return {row["ecg_id"]: row for row in _table(source / "ptbxl_database.csv")}


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    assert main(["prepare", "ptb_xl", "--source", str(source), "--data-dir", str(data_dir), "--workers", "0"]) == 0
    (folder,) = (path.parent for path in data_dir.glob("*/*/card.html"))
    return folder


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        row["record_id"]: row | {"split": split}
        for split in SPLITS
        for row in pq.read_table(folder / f"records-{split}.parquet").to_pylist()
    }


def test_stored_microvolts_are_what_wfdb_reads(folder: Path, source: Path, rows: dict[str, dict[str, str]]) -> None:
    builder = tfds.builder_from_directory(str(folder))
    checked = 0
    for split in SPLITS:
        for record in builder.as_data_source(split=split):
            read = wfdb.rdrecord(str(source / rows[record["record_id"].decode()]["filename_hr"]))
            assert read.sig_name == LEADS
            assert np.abs(record["ecg_uv"] - 1000 * read.p_signal).max() <= 1
            checked += 1
    assert checked == 400


def test_every_row_is_kept_in_its_fold(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    records = _records(folder)
    audit = json.loads((folder / "audit.json").read_text())
    assert sum(audit["outcomes"].values()) == audit["source_rows"] == len(rows) == len(records)
    for ecg_id, row in rows.items():
        fold = int(row["strat_fold"])
        assert records[ecg_id]["split"] == ("train" if fold <= 8 else SPLITS[fold - 8])


def test_fields_say_what_the_table_says(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    for ecg_id, record in _records(folder).items():
        row = rows[ecg_id]
        assert json.loads(record["source_row"]) == row
        assert record["report_raw"] == row["report"]
        assert record["patient_id"] == str(int(float(row["patient_id"])))
        assert record["sex"] == ("female" if row["sex"] == "1" else "male")
        codes = json.loads(row["scp_codes"].replace("'", '"'))
        assert dict(zip(record["label_codes"], record["label_values"], strict=True)) == codes
        if row["age"] and float(row["age"]) < 300:
            assert record["age_years"] == float(row["age"])
            assert not record["age_censored"]
        elif row["age"]:
            assert (record["age_years"], record["age_censored"]) == (90, True)
        else:
            assert np.isnan(record["age_years"])


def test_patients_stand_in_one_split(folder: Path) -> None:
    splits: dict[str, set[str]] = {}
    for record in _records(folder).values():
        splits.setdefault(record["patient_id"], set()).add(record["split"])
    assert all(len(of_patient) == 1 for of_patient in splits.values())


def test_the_low_rate_form_is_the_same_recordings(source: Path, folder: Path, tmp_path: Path) -> None:
    low = build(PtbXl(source, rate_hz=100), tmp_path, workers=0).folder
    assert {r["rate_hz_source"] for r in _records(low).values()} == {100.0}
    assert _records(low).keys() == _records(folder).keys()
    pairs = [tfds.builder_from_directory(str(f)).as_data_source(split="test") for f in (folder, low)]
    correlations = [
        np.corrcoef(hr["ecg_uv"][:, 1].astype(float), lr["ecg_uv"][:, 1].astype(float))[0, 1]
        for hr, lr in zip(*pairs, strict=True)
    ]
    assert np.median(correlations) > 0.98


@pytest.fixture(scope="module")
def reports(shared_data: Path) -> list[str]:
    """Reports of all distinct rows at hand."""
    by_id: dict[str, str] = {}
    for path in [
        *(shared_data / "metadata_only" / "ptbxl").glob("*.csv"),
        shared_data / "ptbxl" / "ptbxl_database.csv",
    ]:
        by_id |= {row["ecg_id"]: row["report"] for row in _table(path)}
    return list(by_id.values())


def test_real_reports_lose_codes_and_boilerplate_and_nothing_else(reports: list[str]) -> None:
    assert len(reports) > 10_000
    cleaned = [clean_report(report) for report in reports]
    assert not any("edit:" in text or "4.46" in text or "unbestätigter" in text for text in cleaned)
    appended = [report for report in reports if "Edit:" in report]
    assert len(appended) > 200
    kept = set("".join(cleaned))
    assert not {c for c in kept if c.isupper()}, "PTB-XL's reports are in lower case"
    for report, text in zip(reports, cleaned, strict=True):
        words = report.split("Edit:")[0].lower().replace("f#r", "für").replace("#bergang", "übergang").split()
        if "4.46" in words:
            words = words[: words.index("4.46")]
        boilerplate = {"trace", "only", "requested.", "pat.", "uppgifter", "saknas!", "saknas"}
        for word in set(words) - boilerplate - set(text.split()):
            assert not any(c.isalnum() for c in word), (word, report)


def test_languages_of_real_reports(reports: list[str]) -> None:
    guesses = [guess_language(report) for report in reports]
    shares = {language: guesses.count(language) / len(guesses) for language in ("de", "en", "sv", "unknown")}
    assert shares["unknown"] < 0.005
    # Words that one language alone has, none of them in the guesser's lists.
    for report, guess in zip(reports, guesses, strict=True):
        text = report.lower()
        if "myokardschaden" in text or "rechtstyp" in text:
            assert guess == "de", report
        if "likely to be due to" in text or "fascicular" in text:
            assert guess == "en", report
        if "förlopp" in text or "retledningshinder" in text:
            assert guess == "sv", report
