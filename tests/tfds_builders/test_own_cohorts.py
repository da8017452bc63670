"""A user's own cohorts, declared by `cohort.yaml`: every field by its column, faults in one sentence."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.common.cohort import BuildError
from tfds_builders.table_folder.cohort import TableFolder
from tfds_builders.table_folder.cohort import from_source as table_folder
from tfds_builders.wfdb_folder.cohort import WfdbFolder

ROOT = Path(tfds_builders.__file__).parent


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "table_folder" / "dummy_data", tmp_path / "own"))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_columns_mean_what_the_declaration_says(own: Path) -> None:
    cohort = table_folder(own, own)
    assert (cohort.facts.name, cohort.facts.access) == ("my_hospital", "private")
    found = outcomes(cohort)
    first = found["17"].records[0]
    assert (first.patient_id, first.age_years, first.sex) == ("P1", 63.0, "female")
    assert (first.report_raw, first.report_language) == ("Sinusrhythmus, Linksschenkelblock.", "de")
    assert (first.label_codes, first.label_vocabulary) == (("426783006", "164909002"), "snomed")
    assert (first.measurement_names, first.measurement_values) == (("qrs_duration_ms",), (148.0,))
    assert found["18"].records[0].measurement_names == ()
    assert {outcome.split for name, outcome in found.items() if name != "19"} == {found["17"].split}


def test_a_parquet_table_says_the_same(own: Path) -> None:
    of_csv = outcomes(TableFolder(own))
    pq.write_table(pa_csv.read_csv(own / "ecgs.csv"), own / "ecgs.parquet")  # numbers are numbers there
    _edit(own / "cohort.yaml", "ecgs.csv", "ecgs.parquet")
    of_parquet = outcomes(TableFolder(own))
    for record_id, outcome in of_csv.items():
        ours, theirs = outcome.records[0].row(), of_parquet[record_id].records[0].row()
        assert {k: v for k, v in ours.items() if v == v} == {k: v for k, v in theirs.items() if v == v}


def test_a_split_column_decides(own: Path) -> None:
    _edit(own / "cohort.yaml", "  path: file\n", "  path: file\n  split: part\n")
    lines = (own / "ecgs.csv").read_text().splitlines()
    parts = ("part", "test", "test", "somewhere")
    (own / "ecgs.csv").write_text("".join(f"{line},{part}\n" for line, part in zip(lines, parts, strict=True)))
    plan = TableFolder(own).plan()
    assert {shard.split: shard.source_rows for shard in plan.shards} == {"test": 2}
    assert [row.reasons for row in plan.dropped] == [("split_unknown",)]
    assert plan.split_rule.kind == "official"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: my_hospital", "name: My Hospital/..", "name: "),
        ("licence: internal, ethics vote 12/2024\n", "", "licence: Field required"),
        ("access: private", "access: secret", "access: "),
        ("  path: file", "  pfad: file", r"columns\.pfad"),
        ("columns:", "columns: [", "no YAML"),
        ("columns:", "columns: !!python/object/apply:os.getcwd []\nx:", "no YAML"),
        ("  report: findings", "  report: befund", "lacks the column befund"),
        ("table: ecgs.csv", "table: other.csv", "holds no other.csv"),
    ],
)
def test_a_faulty_declaration_is_one_sentence(own: Path, old: str, new: str, message: str) -> None:
    _edit(own / "cohort.yaml", old, new)
    with pytest.raises(BuildError, match=message):
        TableFolder(own).plan()


def test_a_folder_that_declares_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"holds no cohort\.yaml"):
        WfdbFolder(tmp_path).facts  # noqa: B018


def test_a_file_outside_the_folder_is_not_read(own: Path) -> None:
    for suffix in (".hea", ".dat"):
        shutil.copy(own / "ecgs" / f"0017{suffix}", own.parent / f"0017{suffix}")
    _edit(own / "ecgs.csv", "ecgs/0017.hea", "../0017.hea")
    assert outcomes(TableFolder(own))["17"].reasons == ("path_outside_source",)


def test_headers_alone(tmp_path: Path) -> None:
    found = outcomes(WfdbFolder(ROOT / "wfdb_folder" / "dummy_data"))
    assert set(found) == {"p1/a", "p1/b", "p2/a"}
    record = found["p1/a"].records[0]
    assert (record.patient_id, record.age_years, record.sex) == ("p1", 63.0, "female")
    assert record.label_codes == ("426783006", "164909002")
    assert record.report_raw == "Sinus rhythm, left bundle branch block."


def test_tfds_finds_a_cohort_of_another_name(tmp_path: Path) -> None:
    import_module("tfds_builders.wfdb_folder.wfdb_folder_dataset_builder")
    source = str(ROOT / "wfdb_folder" / "dummy_data")
    builder = tfds.builder("wfdb_folder", data_dir=str(tmp_path), source=source, workers=0)
    builder.download_and_prepare()
    assert sum(len(builder.as_data_source(split=split)) for split in builder.info.splits) == 3
