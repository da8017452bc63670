"""Stored predictions give the figures of the table again; above `open` access without a way back to the records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.predictions import load_predictions, save_predictions
from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.tasks import EvaluationError

COMMON = {
    "cohort": "a", "version": "1", "split": "test", "language": "en", "label_source": "", "data_fingerprint": "",
    "prompts_fingerprint": "", "evaluation_fingerprint": "", "code_version": "", "synthetic": True, "access": "open",
}  # fmt: skip
N = 120


def world() -> tuple[TestSplit, list[Scored], pa.Table]:
    """Two labels from two sources, unknown here and there, weighted; two arms, one fitted twice on a tenth."""
    rng = np.random.default_rng(0)
    labels = Labels(("x", "y"), rng.random((N, 2)) < 0.3, rng.random((N, 2)) < 0.8)
    sources = {"x": "report", "y": "independent"}
    weight = rng.uniform(1, 3, N)
    test = TestSplit(labels, sources, np.arange(N) // 2, COMMON, 5, 1, 50, 0, weight, sources)

    def scored(name: str, **facts: object) -> Scored:
        return Scored(Arm(name, name * 2, 3), "fine_tune", rng.normal(size=(N, 2)).astype(np.float32), **facts)

    arms = [scored("m"), scored("m", fraction=0.1), scored("m", fraction=0.1, repeat=1)]
    arms.append(scored("n", excluded={"x": Exclusion.ONE_CLASS_IN_TRAINING}))
    return test, arms, pa.table({"record_id": [f"secret-{i}" for i in range(N)]})


def test_rows_computed_from_the_file_are_the_rows_of_the_table(tmp_path: Path) -> None:
    test, scored, table = world()
    found = load_predictions(save_predictions(tmp_path, "a", table, test, scored, identified=True))
    assert found.record_ids == tuple(table.column("record_id").to_pylist())
    again = ranking_rows(found.test, found.scored)
    assert [repr(r) for r in again] == [repr(r) for r in ranking_rows(test, scored)]
    assert {(r.label_fraction, r.n_repeats) for r in again} == {(1.0, 1), (0.1, 2)}


def test_pseudonymous_rows_are_shuffled_and_still_give_the_same_values(tmp_path: Path) -> None:
    test, scored, table = world()
    path = save_predictions(tmp_path, "a", table, test, scored, identified=False)
    assert b"secret" not in path.read_bytes()
    found = load_predictions(path)
    assert found.record_ids is None
    assert found.test.labels.positive.tolist() != test.labels.positive.tolist()
    values = [[r.value for r in ranking_rows(*own)] for own in ((test, scored), (found.test, found.scored))]
    np.testing.assert_allclose(*values, rtol=1e-12)
    sizes = [sorted(np.bincount(t.patient)) for t in (test, found.test)]
    assert sizes[0] == sizes[1]


def test_an_older_file_or_none_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="run `ecgclip evaluate` first"):
        load_predictions(tmp_path / "predictions-a.parquet")
    pq.write_table(pa.table({"patient": [0]}), tmp_path / "predictions-a.parquet")
    with pytest.raises(EvaluationError, match="older version"):
        load_predictions(tmp_path / "predictions-a.parquet")
    test, scored, table = world()
    plain = replace(test, sampling=None, label_sources=None)
    assert (
        load_predictions(save_predictions(tmp_path, "b", table, plain, scored, identified=True)).test.sampling is None
    )
