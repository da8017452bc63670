"""Sections about single ECGs: of open cohorts the most confident errors, of others nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.embedding_map import NO_LABEL, rarest_label, shown_on_a_map
from ecgclip_jax.evaluation.predictions import Predictions
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.evaluation.suites.maps import map_file
from ecgclip_jax.reporting import suite_records
from ecgclip_jax.reporting.content import FigureContent
from ecgclip_jax.reporting.suite_rows import Row, SuiteTable
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.suites import PRETRAINED, CohortSet, SuiteSpec, TestCohort

COHORT, TASK = "hospital", "atrial_fibrillation"
SOURCE = (Source(cohort=COHORT, split="test"),)
SET = CohortSet(name=COHORT, train=SOURCE, validation=SOURCE, internal=TestCohort(name="inside", sources=SOURCE))
IDS = ("a", "b", "c", "d")


def table(access: str) -> SuiteTable:
    row = dict.fromkeys(Row._fields, 0) | {
        "home": COHORT, "availability": "real_here", "label_group": "report", "access": access, "model": PRETRAINED,
        "compared_with": "", "protocol": "linear_probe", "label_fraction": 1.0,
    }  # fmt: skip
    return SuiteTable(SuiteSpec(name="s", summary="s", cohorts=(SET,)), pd.DataFrame([row]), pd.DataFrame([]))


def predictions() -> Predictions:
    """Two repeats whose mean ranks the positive `a` lowest and the negative `d` highest."""
    positive = np.array([[True], [True], [False], [False]])
    test = TestSplit(
        Labels((TASK,), positive, np.ones_like(positive)), {TASK: "report"}, np.arange(4), {}, 1, 1, 10, 0,
        label_sources={TASK: "report"},
    )  # fmt: skip
    scores = np.array([[[0.0], [5.0], [1.0], [2.0]], [[0.0], [-1.0], [0.5], [2.0]]], np.float32)
    fits = tuple(Scored(Arm(PRETRAINED, "f"), "linear_probe", own, {}, repeat=k) for k, own in enumerate(scores))
    return Predictions(test, fits, IDS)


def test_the_most_confident_errors_of_open_cohorts_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(tmp_path, {"test": [tiny_record(n, record_id=i) for n, i in enumerate(IDS)]}, name=COHORT)
    drawn: list[int] = []
    monkeypatch.setattr(suite_records, "pictured", lambda figure, caption, dpi: FigureContent(caption))
    monkeypatch.setattr(suite_records, "stored_page", lambda opened, row: drawn.append(row))
    stored = {COHORT: {"inside": predictions()}}
    (section,) = suite_records.error_sections(table("open"), stored, tmp_path)
    assert [IDS[row] for row in drawn] == ["a", "d"]
    assert "missed: 100% of the ECGs without it score higher" in section.blocks[0].caption
    assert "false alarm: 50% of the ECGs with it score lower" in section.blocks[1].caption, "b has a mean of 2 as well"
    assert suite_records.error_sections(table("credentialed"), stored, tmp_path) == []
    assert suite_records.error_sections(table("open"), stored, tmp_path / "elsewhere") == []


def test_a_map_is_drawn_of_what_was_kept(tmp_path: Path) -> None:
    assert suite_records.map_sections(table("open"), tmp_path) == []
    columns = {"x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 2.0], "test": ["inside", "birch", "birch"], "site": ["s"] * 3}
    columns |= {"device": ["cart"] * 3, "label": [TASK, TASK, NO_LABEL]}
    pq.write_table(pa.table(columns), map_file(tmp_path, COHORT))
    (section,) = suite_records.map_sections(table("open"), tmp_path)
    assert "3 test ECGs" in section.blocks[0].caption


def test_an_ecg_has_the_colour_of_its_rarest_label() -> None:
    positive = np.array([[True, True], [True, False], [False, False]])
    assert rarest_label(positive, ["common", "rare"]) == ["rare", "common", NO_LABEL]
    assert shown_on_a_map(3, 10).tolist() == [0, 1, 2]
    assert len(shown_on_a_map(100, 10)) == 10
