"""Everything that can be wrong with a source folder, in one build: a reason each, counts that add up, the rest kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.ptb_xl.cohort import PtbXl
from tfds_builders.ptb_xl.make_dummy_data import COLUMNS, dummy_ecgs, dummy_row, write_signals, write_table

Row = dict[str, str]


def _dat(source: Path, row: Row) -> Path:
    return source / f"{row['filename_hr']}.dat"


def _header(source: Path, row: Row, change: Callable[[str], str]) -> None:
    path = source / f"{row['filename_hr']}.hea"
    path.write_text(change(path.read_text()))


def _truncate(source: Path, row: Row) -> None:
    path = _dat(source, row)
    path.write_bytes(path.read_bytes()[:-1000])


def _samples(source: Path, row: Row, change: Callable[[np.ndarray], None]) -> None:
    path = _dat(source, row)
    samples = np.fromfile(path, "<i2").reshape(5000, 12)
    change(samples)
    samples.tofile(path)
    lines = (source / f"{row['filename_hr']}.hea").read_text().splitlines()
    # Honest checksums again, so that only what the test is about is wrong.
    sums = samples.astype(np.int64).sum(axis=0) % 65536
    for lead in range(12):
        cells = lines[lead + 1].split()
        cells[5:7] = str(samples[0, lead]), str(sums[lead])
        lines[lead + 1] = " ".join(cells)
    (source / f"{row['filename_hr']}.hea").write_text("\n".join(lines) + "\n")


def _gap(samples: np.ndarray) -> None:
    samples[100:200, 3] = -32768


def _flat(samples: np.ndarray) -> None:
    samples[:, 7] = 0


def _ten_leads(source: Path, row: Row) -> None:
    path = _dat(source, row)
    np.ascontiguousarray(np.fromfile(path, "<i2").reshape(5000, 12)[:, :10]).tofile(path)
    _header(source, row, lambda text: "\n".join(text.replace(" 12 500 ", " 10 500 ").splitlines()[:11]) + "\n")


@dataclass(frozen=True)
class Case:
    """A defect, and what the audit must say of the record."""

    outcome: str
    reasons: set[str]
    row: dict[str, str] | None = None
    files: Callable[[Path, Row], None] | None = None


CASES: dict[str, Case] = {
    "sound": Case("kept", set()),
    "truncated dat": Case("dropped", {"truncated"}, files=_truncate),
    "header promises more": Case(
        "dropped", {"truncated"}, files=lambda s, r: _header(s, r, lambda t: t.replace(" 500 5000", " 500 50000"))
    ),
    "header promises less": Case(
        "dropped", {"header_lies"}, files=lambda s, r: _header(s, r, lambda t: t.replace(" 500 5000", " 500 500"))
    ),
    "header at another rate": Case(
        "dropped", {"header_lies"}, files=lambda s, r: _header(s, r, lambda t: t.replace(" 12 500 ", " 12 250 "))
    ),
    "header is no header": Case(
        "dropped", {"header_malformed"}, files=lambda s, r: _header(s, r, lambda t: "<html>not found</html>\n")
    ),
    "missing signal file": Case("dropped", {"missing_file"}, files=lambda s, r: _dat(s, r).unlink()),
    "empty signal file": Case("dropped", {"empty"}, files=lambda s, r: _dat(s, r).write_bytes(b"")),
    "missing samples": Case("flagged", {"missing_samples"}, files=lambda s, r: _samples(s, r, _gap)),
    "flat lead": Case("flagged", {"flat_lead"}, files=lambda s, r: _samples(s, r, _flat)),
    "ten leads": Case("flagged", {"missing_lead"}, files=_ten_leads),
    "other samples than the checksum": Case(
        "flagged",
        {"checksum_mismatch"},
        files=lambda s, r: _header(s, r, lambda t: t.replace(t.split()[10], str((int(t.split()[10]) + 1) % 65536), 1)),
    ),
    "absurd age": Case("flagged", {"age_out_of_range"}, {"age": "1500.0"}),
    "age in words": Case("flagged", {"age_out_of_range"}, {"age": "old"}),
    "no age": Case("flagged", {"age_unknown"}, {"age": ""}),
    "censored age": Case("kept", set(), {"age": "300.0"}),
    "unknown sex": Case("flagged", {"sex_unknown"}, {"sex": "2"}),
    "height in metres": Case("flagged", {"height_out_of_range"}, {"height": "1.75"}),
    "weight in words": Case("flagged", {"weight_out_of_range"}, {"weight": "heavy"}),
    "no patient": Case("flagged", {"patient_unknown"}, {"patient_id": ""}),
    "empty report": Case("flagged", {"report_empty"}, {"report": ""}),
    "report without a finding": Case("flagged", {"report_boilerplate"}, {"report": "trace only requested."}),
    "labels in the report": Case("flagged", {"report_labels_removed"}, {"report": "sinus rhythm. Edit: NORM 100"}),
    "codes are code": Case("dropped", {"labels_malformed"}, {"scp_codes": "__import__('os').getcwd()"}),
    "codes are a list": Case("dropped", {"labels_malformed"}, {"scp_codes": "['NORM']"}),
    "codes nest without end": Case("dropped", {"labels_malformed"}, {"scp_codes": "(" * 5000 + ")" * 5000}),
    "unknown fold": Case("dropped", {"split_unknown"}, {"strat_fold": "11"}),
    "no id": Case("dropped", {"record_id_missing"}, {"ecg_id": " "}),
    "path climbs out": Case("dropped", {"path_outside_source"}, {"filename_hr": "../outside/00001_hr"}),
    "absolute path": Case("dropped", {"path_outside_source"}, {"filename_hr": "/etc/hostname"}),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path]:
    """A source with one record per case, all in training, and the dataset made of it."""
    source = tmp_path_factory.mktemp("ptb_xl_source")
    rows: list[Row] = []
    for ecg_id, (case, ecg_uv) in enumerate(zip(CASES.values(), dummy_ecgs(len(CASES)), strict=True), start=1):
        row = dummy_row(ecg_id)
        write_signals(source, row, ecg_uv)
        if case.files:
            case.files(source, row)
        rows.append(row | (case.row or {}))
    outside = source.parent / "outside"
    outside.mkdir()
    for suffix in (".hea", ".dat"):
        (outside / f"00001_hr{suffix}").write_bytes((source / f"{rows[0]['filename_hr']}{suffix}").read_bytes())
    rows += [
        rows[0],  # the same row twice
        dummy_row(900) | {"filename_hr": rows[0]["filename_hr"]},  # the same waveform under another id …
        dummy_row(901, fold=10) | {"filename_hr": rows[0]["filename_hr"]},  # … and in the test split
        dummy_row(902, patient_id=16, fold=9) | {"filename_hr": rows[15]["filename_hr"]},  # patient 16 trains, too
    ]
    write_table(source, rows)
    with (source / "ptbxl_database.csv").open("a", newline="") as table:
        table.write("999,half a row\r\n")
    prepared = build(PtbXl(source), tmp_path_factory.mktemp("data"), workers=0)
    return rows, prepared.folder


def _audit(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "audit.parquet").to_pylist()


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("sound", "censored age")])
def test_each_defect_has_its_reason(built: tuple[list[Row], Path], name: str) -> None:
    row = _audit(built[1])[list(CASES).index(name)]
    case = CASES[name]
    assert (row["outcome"], set(row["reasons"])) == (case.outcome, case.reasons), row["detail"]
    assert bool(row["detail"]) == (case.outcome == "dropped")


def test_repeated_rows_waveforms_and_patients(built: tuple[list[Row], Path]) -> None:
    audit = _audit(built[1])
    n = len(CASES)
    assert audit[0]["reasons"] == ["duplicate_waveform_across_splits"]
    assert (audit[n]["outcome"], audit[n]["reasons"]) == ("dropped", ["record_id_repeated"])
    assert (audit[n + 1]["outcome"], audit[n + 1]["reasons"]) == ("flagged", ["duplicate_waveform_across_splits"])
    assert (audit[n + 2]["outcome"], audit[n + 2]["split"]) == ("flagged", "test")
    assert audit[15]["reasons"] == ["patient_in_two_splits"]
    assert (audit[n + 3]["outcome"], audit[n + 3]["split"]) == ("kept", "validation")
    assert (audit[n + 4]["outcome"], audit[n + 4]["reasons"]) == ("dropped", ["row_malformed"])


def test_counts_add_up(built: tuple[list[Row], Path]) -> None:
    rows, folder = built
    counts = json.loads((folder / "audit.json").read_text())
    cohort = json.loads((folder / "cohort.json").read_text())
    audit = _audit(folder)
    assert counts["source_rows"] == len(rows) + 1 == sum(counts["outcomes"].values()) == len(audit)
    assert [row["source_index"] for row in audit] == list(range(len(audit)))
    stored = sum(pq.read_metadata(path).num_rows for path in folder.glob("records-*.parquet"))
    assert stored == counts["outcomes"]["kept"] + counts["outcomes"]["flagged"] == sum(cohort["splits"].values())
    assert cohort["reasons"] == counts["reasons"]


def test_what_is_stored_of_odd_records(built: tuple[list[Row], Path]) -> None:
    rows, folder = built
    records = {r["record_id"]: r for r in pq.read_table(folder / "records-train.parquet").to_pylist()}
    by_name = {name: records.get(rows[i]["ecg_id"]) for i, name in enumerate(CASES)}
    assert np.isnan(by_name["absurd age"]["age_years"])
    assert not by_name["no patient"]["patient_id_known"]
    assert by_name["ten leads"]["lead_present"] == [True] * 10 + [False] * 2
    assert by_name["labels in the report"]["report_clean"] == "sinus rhythm."
    assert by_name["labels in the report"]["report_raw"] == "sinus rhythm. Edit: NORM 100"
    assert by_name["report without a finding"]["report_clean"] == ""
    for i, name in enumerate(CASES):
        if by_name[name]:
            assert json.loads(by_name[name]["source_row"]) == rows[i]


def test_a_censored_age_is_a_lower_bound(tmp_path: Path) -> None:
    row = dummy_row(1) | {"age": "300.0"}
    write_signals(tmp_path, row, dummy_ecgs(1)[0])
    write_table(tmp_path, [row])
    folder = build(PtbXl(tmp_path), tmp_path / "data", workers=0).folder
    (record,) = pq.read_table(folder / "records-train.parquet").to_pylist()
    assert (record["age_years"], record["age_censored"]) == (90.0, True)


def test_height_and_weight_are_kept_and_the_rest_is_unknown(tmp_path: Path) -> None:
    row = dummy_row(1) | {"height": "168.0", "weight": ""}
    write_signals(tmp_path, row, dummy_ecgs(1)[0])
    write_table(tmp_path, [row])
    folder = build(PtbXl(tmp_path), tmp_path / "data", workers=0).folder
    (record,) = pq.read_table(folder / "records-train.parquet").to_pylist()
    assert record["height_cm"] == 168.0
    unknown = ("weight_kg", "smoker", "diabetes", "systolic_mmhg", "follow_up_years", "event_observed")
    assert all(np.isnan(record[name]) for name in unknown)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_table(tmp_path, [dummy_row(1)], [column for column in COLUMNS if column != "scp_codes"])
    with pytest.raises(BuildError, match="scp_codes"):
        PtbXl(tmp_path).plan()


def test_a_folder_without_the_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"ptbxl_database\.csv.*--source"):
        PtbXl(tmp_path).plan()


def test_nothing_kept_says_why(tmp_path: Path) -> None:
    write_table(tmp_path, [dummy_row(1)])
    with pytest.raises(BuildError, match="missing_file: 1"):
        build(PtbXl(tmp_path), tmp_path / "data", workers=0)
    assert not (tmp_path / "data" / "ptb_xl" / "1.0.3").exists()


def test_a_split_that_lost_every_record_is_counted(tmp_path: Path) -> None:
    rows = [dummy_row(1), dummy_row(2, fold=10)]
    write_signals(tmp_path, rows[0], dummy_ecgs(1)[0])
    write_table(tmp_path, rows)
    folder = build(PtbXl(tmp_path), tmp_path / "data", workers=0).folder
    assert json.loads((folder / "cohort.json").read_text())["splits"] == {"train": 1}
    assert json.loads((folder / "audit.json").read_text())["splits"]["test"] == {"kept": 0, "flagged": 0, "dropped": 1}
