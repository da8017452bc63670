"""Icentia11k: windows thinned at even distances, and a rhythm that every window knows by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.outcomes import outcomes

import tfds_builders
from tfds_builders.common.cohort import BuildError
from tfds_builders.common.dummy import dummy_ecgs, write_wfdb
from tfds_builders.common.records import Annotation
from tfds_builders.icentia11k.cohort import Icentia11k, repeated_rhythms

DUMMY = Path(tfds_builders.__file__).parent / "icentia11k" / "dummy_data"


def test_segments_of_a_patient_and_their_windows() -> None:
    found = outcomes(Icentia11k(DUMMY))
    assert set(found) == {"p00000_s00", "p00000_s01", "p07178_s00"}
    windows = found["p00000_s01"].records
    assert [window.window_index for window in windows] == [0, 1, 2, 3, 4]
    assert {window.patient_id for window in windows} == {"p00000"}
    assert windows[0].lead_present.tolist() == [True] + [False] * 11
    expected = dummy_ecgs(3, n_samples=25_000)[1, 5000:10_000:2, 0]
    np.testing.assert_allclose(windows[1].ecg_uv[::2, 0], expected, atol=1)
    splits = {outcome.records[0].patient_id: outcome.split for outcome in found.values()}
    assert found["p00000_s00"].split == splits["p00000"], "a patient stays in one split"


def test_every_window_knows_its_rhythm() -> None:
    windows = outcomes(Icentia11k(DUMMY))["p07178_s00"].records
    marks = [list(zip(w.annotation_samples, w.annotation_codes, strict=True)) for w in windows]
    rhythms = [[mark for mark in of_window if mark[1][0] in "()"] for of_window in marks]
    assert rhythms == [
        [(1000, "(N")],
        [(0, "(N"), (2000, ")"), (3000, "(AFIB")],
        [(0, "(AFIB")],
        [(0, "(AFIB")],
        [(0, "(AFIB"), (4000, ")")],
    ]
    assert (200, "N") in marks[0], "sample 100 at 250 Hz"


def test_a_rhythm_that_begins_with_a_window_is_said_once() -> None:
    marks = [Annotation("(N", 0.0), Annotation("N", 1.0), Annotation("(AFL", 20.0)]
    assert [(m.code, m.time_s) for m in repeated_rhythms(marks, 35.0)] == [("(N", 10.0), ("(AFL", 30.0)]
    assert not list(repeated_rhythms([Annotation("(N", 3.0), Annotation(")", 9.0)], 100.0))


def test_thinned_windows_and_segments() -> None:
    def indices(**options: int) -> dict[str, list[int]]:
        found = outcomes(Icentia11k(DUMMY, **options))
        return {name: [window.window_index for window in outcome.records] for name, outcome in found.items()}

    assert indices(windows_per_segment=3)["p00000_s00"] == [0, 2, 4]
    assert indices(windows_per_segment=9)["p00000_s00"] == [0, 1, 2, 3, 4]
    assert set(indices(segments_per_patient=1)) == {"p00000_s00", "p07178_s00"}
    assert outcomes(Icentia11k(DUMMY, stored_as="II"))["p00000_s00"].records[0].lead_present.tolist()[:2] == [0, 1]
    with pytest.raises(BuildError, match="positive"):
        Icentia11k(DUMMY, windows_per_segment=-1)


def test_a_record_of_several_leads_is_none_of_the_cohort(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DUMMY, tmp_path / "source"))
    samples = np.ascontiguousarray(dummy_ecgs(1)[0, :, :2])
    write_wfdb(source / "p07/p07178/p07178_s00", samples, rate_hz=250, gain="1000/mV", leads=("I", "II"))
    (source / "notes.hea").write_text("notes 1 250 10\n")
    found = outcomes(Icentia11k(source))
    assert set(found) == {"p00000_s00", "p00000_s01", "p07178_s00"}
    assert found["p07178_s00"].reasons == ("header_lies",)
