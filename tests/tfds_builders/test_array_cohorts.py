"""Cohorts of arrays: CPSC 2018's structs, SPH's and CODE-15 %'s HDF5 files, and what hostile ones may not do."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.code15.cohort import Code15
from tfds_builders.code15.make_dummy_data import SAMPLES, tracing_mv, write_part
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.dummy import dummy_ecgs
from tfds_builders.cpsc2018.cohort import Cpsc2018
from tfds_builders.sami_trop.cohort import SamiTrop
from tfds_builders.sph.cohort import Sph

ROOT = Path(tfds_builders.__file__).parent


def _copy(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(ROOT / name / "dummy_data", folder / name))


def test_structs_of_cpsc2018() -> None:
    found = outcomes(Cpsc2018(ROOT / "cpsc2018" / "dummy_data"))
    first, unknown_age = found["A0001"].records[0], found["A0608"]
    assert (first.age_years, first.sex, first.label_codes, first.label_vocabulary) == (74.0, "male", ("5",), "cpsc2018")
    np.testing.assert_array_equal(first.ecg_uv[:3000], dummy_ecgs(1, n_samples=3000, seed=6)[0])
    assert (first.ecg_uv[3000:] == -32768).all()
    assert unknown_age.records[0].label_codes == ("2", "5", "8")
    assert "age_unknown" in unknown_age.reasons
    assert np.isnan(first.resolution_uv)


def _bomb(path: Path) -> None:
    packed = zlib.compress(bytes(2**27), 9)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)


STRUCTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bomb": (_bomb, "unreadable"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:2000]) and None, "unreadable"),
    "text": (lambda path: path.write_text("<html>" * 100) and None, "unreadable"),
    "missing": (Path.unlink, "missing_file"),
    "empty": (lambda path: path.write_bytes(b"") and None, "empty"),
}


@pytest.mark.parametrize("case", STRUCTS)
def test_bad_structs_have_a_reason(case: str, tmp_path: Path) -> None:
    source = _copy("cpsc2018", tmp_path)
    damage, reason = STRUCTS[case]
    damage(source / "TrainingSet" / "A0001.mat")
    found = outcomes(Cpsc2018(source))
    assert found["A0001"].reasons == (reason,)
    assert found["A0002"].records


def test_a_class_that_is_none_is_not_guessed(tmp_path: Path) -> None:
    source = _copy("cpsc2018", tmp_path)
    table = source / "TrainingSet" / "REFERENCE.csv"
    table.write_text(table.read_text().replace("A0001,5", "A0001,10"))
    assert outcomes(Cpsc2018(source))["A0001"].reasons == ("labels_malformed",)


def test_statements_of_sph() -> None:
    found = outcomes(Sph(ROOT / "sph" / "dummy_data"))
    first, second = found["A00001"].records[0], found["A00002"].records
    assert (first.label_codes, first.label_vocabulary, first.age_years, first.sex) == (
        ("22", "23"),
        "aha",
        55.0,
        "male",
    )
    assert found["A00003"].records[0].label_codes == ("60+341", "106")
    assert second[0].patient_id == found["A00003"].records[0].patient_id == "S00002"
    assert np.abs(first.ecg_uv - dummy_ecgs(1)[0].astype(int)).max() <= 1, "half precision: 1 µV at 2 mV"
    assert len(second) == 1, "a remainder of 2 s would be mostly padding"


def _external_link(path: Path) -> None:
    outside = path.parents[2] / "outside.h5"
    shutil.copy(path, outside)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["ecg"] = h5py.ExternalLink(str(outside), "ecg")


def _external_storage(path: Path) -> None:
    raw = path.parents[2] / "outside.bin"
    raw.write_bytes(bytes(12 * 5000 * 4))
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 5000), np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def _promise(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 10**9), np.float16, chunks=(12, 1000))


HDF5: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link out of the file": (_external_link, "unreadable"),
    "samples in another file": (_external_storage, "unreadable"),
    "a thousand million samples": (_promise, "unreadable"),
    "text": (lambda path: path.write_text("no HDF5") and None, "unreadable"),
    "missing": (Path.unlink, "missing_file"),
}


@pytest.mark.parametrize("case", HDF5)
def test_bad_hdf5_files_have_a_reason(case: str, tmp_path: Path) -> None:
    source = _copy("sph", tmp_path)
    damage, reason = HDF5[case]
    damage(source / "records" / "A00001.h5")
    found = outcomes(Sph(source))
    assert found["A00001"].reasons == (reason,)
    assert found["A00002"].records


def test_an_id_that_climbs_out(tmp_path: Path) -> None:
    source = _copy("sph", tmp_path)
    shutil.copy(source / "records" / "A00001.h5", tmp_path / "A9.h5")
    table = source / "metadata.csv"
    table.write_text(table.read_text().replace("A00001", "../../A9"))
    assert outcomes(Sph(source))["../../A9"].reasons == ("path_outside_source",)


def test_tracings_of_code15_are_found_by_id() -> None:
    found = outcomes(Code15(ROOT / "code15" / "dummy_data"))
    assert set(found) == {"1169160", "2873686", "168405"}, "id 0 is no exam"
    for exam_id, seconds, seed in (("2873686", 7, 1), ("1169160", 10, 2), ("168405", 7, 3)):
        (record,) = found[exam_id].records
        expected = dummy_ecgs(1, n_samples=500 * seconds, seed=seed)[0]
        present = (record.ecg_uv != -32768).any(axis=1)
        assert abs(int(present.sum()) - 500 * seconds) <= 2, "zeros at both ends are no signal"
        inner = slice(100, 500 * seconds - 100)
        assert np.corrcoef(record.ecg_uv[inner, 1], expected[inner, 1])[0, 1] > 0.98
        assert "zero_padding_removed" in found[exam_id].reasons
    block, normal, follow_up_unknown = (found[i].records[0] for i in ("2873686", "1169160", "168405"))
    assert block.label_codes == ("1dAVb", "AF")
    assert (block.event_observed, block.follow_up_years) == (1.0, pytest.approx(6.657529))
    assert (normal.label_codes, normal.sex, normal.patient_id) == (("normal_ecg",), "male", "523632")
    assert np.isnan([follow_up_unknown.event_observed, follow_up_unknown.follow_up_years]).all()


def test_parts_and_tracings_that_are_not_there(tmp_path: Path) -> None:
    source = _copy("code15", tmp_path)
    (source / "exams_part1.hdf5").unlink()
    write_part(source / "exams_part0.hdf5", {2873686: np.zeros((SAMPLES, 12), np.float32), 5: tracing_mv(7, 1)})
    assert {name: outcome.reasons for name, outcome in outcomes(Code15(source)).items()} == {
        "168405": ("missing_file",),
        "1169160": ("not_in_signals",),
        "2873686": ("empty",),
    }


def test_rows_and_tracings_of_sami_trop_have_to_be_as_many(tmp_path: Path) -> None:
    source = _copy("sami_trop", tmp_path)
    found = outcomes(SamiTrop(source))
    dead = found["291209"].records[0]
    assert (dead.label_codes, dead.event_observed, dead.patient_id) == (("normal_ecg",), 1.0, "291209")
    inner = slice(100, 3400)
    expected = dummy_ecgs(1, n_samples=3500, seed=2)[0]
    assert np.corrcoef(dead.ecg_uv[inner, 1], expected[inner, 1])[0, 1] > 0.98
    table = source / "exams.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(BuildError, match=r"1 rows and exams\.hdf5 2 tracings"):
        SamiTrop(source).plan()
