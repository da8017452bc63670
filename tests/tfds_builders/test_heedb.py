"""HEEDB: two layouts, tables that spell a file in several ways, statements of codes, duplicates left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.dummy import dummy_ecgs, write_csv, write_wfdb
from tfds_builders.heedb.cohort import Heedb
from tfds_builders.heedb.tables import LabelSource, record_of, year_of

DUMMY = Path(tfds_builders.__file__).parent / "heedb" / "dummy_data"
FIRST, SECOND = "I0001/S0001/1998/de_1001", "I0001/S0002/2011/de_1002"
EMORY = "I0006/2010/MUSE_20191204_094914_19000"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DUMMY, tmp_path / "heedb"))


def test_two_hospitals_in_one_cohort() -> None:
    found = outcomes(Heedb(DUMMY))
    assert set(found) == {FIRST, SECOND, EMORY}
    first, emory = found[FIRST].records[0], found[EMORY].records[0]
    assert (first.label_codes, first.label_vocabulary) == (("Normal sinus rhythm", "Normal ECG"), "12sl")
    assert first.report_raw == "Normal sinus rhythm. Normal ECG"
    assert (first.patient_id, first.site, first.sex) == ("I0001-101", "I0001 S0001", "female")
    assert first.age_years == pytest.approx(20_000 / 365.2425)
    assert (emory.patient_id, emory.site, emory.sex) == ("I0006-201", "I0006", "male")
    assert (emory.label_codes, emory.report_raw) == ((), ""), "nobody over-read it"
    assert (first.rate_hz_source, emory.rate_hz_source) == (250.0, 500.0)
    ecgs = dummy_ecgs(3)
    np.testing.assert_array_equal(emory.ecg_uv, ecgs[2])
    np.testing.assert_allclose(first.ecg_uv[::2], ecgs[0, ::2], atol=1)


@pytest.mark.parametrize(
    ("labels_from", "second", "emory"),
    [
        ("physician", ("Atrial fibrillation", "Right bundle branch block"), ()),
        ("software", ("Atrial fibrillation",), ("Sinus bradycardia", "99")),
        ("v24", ("Atrial fibrillation", "Right bundle branch block"), ("Sinus bradycardia",)),
        ("none", (), ()),
    ],
)
def test_whose_statements(labels_from: LabelSource, second: tuple[str, ...], emory: tuple[str, ...]) -> None:
    found = outcomes(Heedb(DUMMY, labels_from=labels_from))
    assert found[SECOND].records[0].label_codes == second
    assert found[EMORY].records[0].label_codes == emory
    assert "99" not in found[EMORY].records[0].report_raw, "a number is no statement"
    assert ("report_empty" in found[EMORY].reasons) == (labels_from == "physician"), "no reports at all is no news"


def test_a_part_of_the_cohort() -> None:
    assert set(outcomes(Heedb(DUMMY, hospital="I0006"))) == {EMORY}
    assert set(outcomes(Heedb(DUMMY, first_year=2000))) == {SECOND, EMORY}
    assert set(outcomes(Heedb(DUMMY, first_year=1998, last_year=2010))) == {FIRST, EMORY}
    assert Heedb(DUMMY, hospital="I0006").facts.published_counts == {}
    assert Heedb(DUMMY).facts.published_counts["records"] == 11_440_211
    with pytest.raises(BuildError, match="lies after"):
        Heedb(DUMMY, first_year=2012, last_year=2011)


def test_paths_as_tables_write_them() -> None:
    for spelling in ("./S0001/1998/x.hea\n", "/S0001/1998/x", "WFDB/S0001/1998/x", "./WFDB/S0001/1998/x.hea"):
        assert record_of(spelling) == "S0001/1998/x"
    assert (year_of("S0001/1998/x"), year_of("2013/MUSE_1"), year_of("S0001/1998"), year_of("x/y")) == (
        1998,
        2013,
        None,
        None,
    )


def test_rows_with_something_wrong(source: Path) -> None:
    write_csv(source / "Metadata" / "duplicated.csv", ("file_name",), [{"file_name": "S0001/1998/de_1001.hea"}])
    acquisition = source / "I0001" / "12SL_diagnoses" / "diagnoses_acquisition.csv"
    acquisition.write_text(acquisition.read_text().replace('"161,440"', "rm -rf"))
    (source / "I0006" / "WFDB" / "2010" / "MUSE_20191204_094914_19000.dat").unlink()
    metadata = source / "I0001" / "metadata" / "metadata.csv"
    metadata.write_text(metadata.read_text() + "only,two\n")
    cohort = Heedb(source)
    assert {name: outcome.reasons for name, outcome in outcomes(cohort).items()} == {
        FIRST: ("listed_as_duplicate",),
        SECOND: ("labels_malformed",),
        EMORY: ("missing_file",),
    }
    assert [row.reasons for row in cohort.plan().dropped] == [("row_malformed",)]


def _drop(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        path = source / name
        path.write_text(path.read_text().replace(old, new))

    return damage


def _repeat(source: Path) -> None:
    path = source / "I0001" / "12SL_diagnoses" / "diagnoses_acquisition.csv"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[1])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop("I0001/12SL_diagnoses/diagnoses_acquisition.csv"), "diagnoses_acquisition.csv"),
        (_drop("I0001/12SL_diagnoses/diagnoses_dictionary.csv"), "diagnoses_dictionary.csv"),
        (_replace("I0001/metadata/metadata.csv", "FileName", "Filing"), "FileName or file_name.*found.*Filing"),
        (_replace("I0001/metadata/metadata.csv", "BDSPPatientID", "Who"), "BDSPPatientID"),
        (_repeat, "repeated"),
        (lambda source: shutil.rmtree(source / "I0001") or shutil.rmtree(source / "I0006"), "bdsp.io"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(damage: Callable[[Path], None], told: str, source: Path) -> None:
    damage(source)
    with pytest.raises(BuildError, match=f"(?s){told}"):
        Heedb(source).plan()


def test_a_hospital_that_was_asked_for_has_to_be_there(source: Path) -> None:
    shutil.rmtree(source / "I0006")
    assert set(outcomes(Heedb(source))) == {FIRST, SECOND}
    with pytest.raises(BuildError, match=r"holds no metadata\.csv"):
        Heedb(source, hospital="I0006").plan()


def test_version_2(tmp_path: Path) -> None:
    metadata = tmp_path / "Metadata"
    rows = [
        {"FileName": f"./S0001/1987/de_{i}.hea", "BDSPPatientID": str(i), "SexDSC": "Male", "Age": "61"}
        for i in range(3)
    ]
    write_csv(metadata / "demographics_ECG.csv", tuple(rows[0]), rows)
    (metadata / "ECG_Interpretations.psv").write_text("file_source|diagnostic_codes\nde_1|19, 22\n")
    for i, ecg_uv in enumerate(dummy_ecgs(3)):
        path = tmp_path / "ECG" / "WFDB" / "S0001" / "1987" / f"de_{i}"
        write_wfdb(path, ecg_uv, rate_hz=500, gain="1000/mV", mat=True)
    with pytest.raises(BuildError, match=r"duplicated\.csv"):
        Heedb(tmp_path, labels_from="software").plan()
    (metadata / "duplicated.csv").write_text("file_name\nS0001/1987/de_2.hea\n")
    with pytest.raises(BuildError, match="--labels-from software"):
        Heedb(tmp_path).plan()
    found = outcomes(Heedb(tmp_path, labels_from="software"))
    record = found["I0001/S0001/1987/de_1"].records[0]
    assert (record.label_codes, record.report_raw, record.age_years) == (("19", "22"), "", 61.0)
    assert found["I0001/S0001/1987/de_2"].reasons == ("listed_as_duplicate",)


def test_what_is_built_names_nobody(tmp_path: Path) -> None:
    prepared = build(Heedb(DUMMY), tmp_path, workers=0)
    assert prepared.cohort["access"] == "credentialed"
    assert "de_1001" not in (prepared.folder / "audit.json").read_text()
