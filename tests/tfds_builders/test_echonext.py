"""EchoNext: z-scores undone with the authors' constants, rows and tracings joined by a position that is checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.outcomes import outcomes

from tfds_builders.common.cohort import BuildError
from tfds_builders.common.dummy import dummy_ecgs
from tfds_builders.echonext.cohort import CONSTANTS, TABLES, EchoNext, features, waveforms
from tfds_builders.echonext.make_dummy_data import row_of, write_dummy, write_table


def test_microvolts_labels_and_measurements(tmp_path: Path) -> None:
    write_dummy(tmp_path)
    found = outcomes(EchoNext(tmp_path))
    train, healthy, test = (found[f"e{i}"].records[0] for i in range(3))
    for number, record in enumerate((train, healthy, test)):
        # Published at 250 Hz: every second sample is one of the recording's own.
        np.testing.assert_allclose(record.ecg_uv[::2], dummy_ecgs(3)[number, ::2], atol=3)
    assert train.label_codes == ("lvef_lte_45_flag", "shd_moderate_or_greater_flag")
    assert healthy.label_codes == ("no_flag",), "all flags 0 is healthy, not unlabelled"
    assert dict(zip(test.measurement_names, test.measurement_values, strict=True))["tr_max_velocity_m_s"] == 2.5
    assert (train.sex, healthy.sex, train.age_years, train.resolution_uv) == ("female", "male", 50.0, 4.88)
    assert {"filtered_by_publisher", "unit_inferred"} <= set(found["e0"].reasons)
    assert [outcome.split for outcome in found.values()] == ["train", "validation", "test"]


def _rows(count: int, split: str = "train") -> list[dict[str, str]]:
    return [row_of(number, split, ()) for number in range(count)]


def test_rows_that_say_less_than_others(tmp_path: Path) -> None:
    rows = [*_rows(3), row_of(3, "no_split", ())]
    rows[0]["pasp_gte_45_flag"] = ""
    rows[1]["pasp_gte_45_flag"] = "maybe"
    rows[2] |= {"age_at_ecg": "90", "sex": "", "lvef_value": "", "pasp_value": "nan"}
    write_table(tmp_path, rows[:3] + rows[3:])
    cohort = EchoNext(tmp_path)
    assert [row.reasons for row in cohort.plan().dropped] == [("split_unknown",)]
    found = outcomes(cohort)
    assert found["e0"].records[0].label_codes == ()
    assert "labels_incomplete" in found["e0"].reasons
    assert found["e1"].reasons == ("labels_malformed",)
    old = found["e2"].records[0]
    assert (old.age_years, old.age_censored, old.sex) == (90.0, True, "unknown")
    assert not {"lvef_percent", "pasp_mmhg"} & set(old.measurement_names)


def test_a_split_that_is_not_there_is_missing_row_by_row(tmp_path: Path) -> None:
    write_dummy(tmp_path)
    (tmp_path / waveforms("val")).unlink()
    found = outcomes(EchoNext(tmp_path))
    assert found["e1"].reasons == ("missing_file",)
    assert found["e0"].records


def _without_constants(folder: Path) -> None:
    (folder / CONSTANTS).unlink()


def _constants(text: str) -> Callable[[Path], None]:
    return lambda folder: folder.joinpath(CONSTANTS).write_text(text) and None


def _one_row_less(folder: Path) -> None:
    table = folder / TABLES[0]
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def _sorted_otherwise(folder: Path) -> None:
    table = folder / TABLES[0]
    head, *rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, *np.random.default_rng(0).permutation(rows)]))


def _malformed_row(folder: Path) -> None:
    table = folder / TABLES[0]
    table.write_text(table.read_text() + "1,2,3\n")


def _pickled(folder: Path) -> None:
    np.save(folder / waveforms("train"), np.array([{"a": 1}] * 12, object), allow_pickle=True)


def _cut_short(folder: Path) -> None:
    path = folder / waveforms("train")
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_without_constants, "IntroECG"),
        (_constants("{"), "IntroECG"),
        (_constants(json.dumps({"mean": [0.0] * 12, "std": [0.0] * 12})), "IntroECG"),
        (_constants(json.dumps({"mean": [0.0] * 8, "std": [1.0] * 8})), "IntroECG"),
        (_one_row_less, "11 rows of train and EchoNext_train_waveforms.npy 12"),
        (_sorted_otherwise, "one of the two was sorted"),
        (_malformed_row, "row 12"),
        (_pickled, "Python objects"),
        (_cut_short, "numpy"),
        (lambda folder: (folder / TABLES[0]).unlink(), "holds no echonext_metadata_100k.csv"),
        (lambda folder: np.save(folder / features("train"), np.zeros((12, 8))), "floating-point rows"),
    ],
)
def test_what_does_not_fit_is_refused(damage: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    write_table(tmp_path, _rows(12))
    damage(tmp_path)
    with pytest.raises(BuildError, match=told):
        EchoNext(tmp_path).plan()


def test_the_readme_s_spelling_of_the_table(tmp_path: Path) -> None:
    write_dummy(tmp_path)
    (tmp_path / TABLES[0]).rename(tmp_path / TABLES[1])
    assert len(outcomes(EchoNext(tmp_path))) == 3
