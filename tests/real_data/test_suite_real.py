"""`ecgclip evaluate --suite quick` on the real records at hand: what it scores, what it leaves out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from support.real_sources import REAL_SOURCES, table
from support.tiny_evaluation import trained_run

from ecgclip_jax.cli.main import main
from ecgclip_jax.evaluation.results import ResultRow, Results, load_results
from ecgclip_jax.evaluation.suites import named

pytestmark = pytest.mark.real_data
COHORTS = ("ptb_xl", "challenge2021", "cpsc2018", "sph")
TASKS = (
    "normal_ecg",
    "sinus_bradycardia",
    "atrial_fibrillation",
    "left_bundle_branch_block",
    "left_ventricular_hypertrophy",
    "old_inferior_infarction",
    "long_qt",
    "hypertrophic_cardiomyopathy",
)
"""Of the suite's 89, so that the test is short."""
LEAST_POSITIVES = 10


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    for name in COHORTS:
        made = tmp_path_factory.mktemp(name)
        source = shared_data / "ptbxl" if name == "ptb_xl" else REAL_SOURCES[name](shared_data, made)
        assert main(["prepare", name, "--source", str(source), "--data-dir", str(data_dir), "--workers", "0"]) == 0
    run, short = trained_run().folder, named.quick().replace({"tasks": TASKS})
    words = ["evaluate", str(run), "--suite", "quick", "--data-dir", str(data_dir), "--replicates", "50"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(named, "SUITES", {"quick": lambda: short})
        assert main(words) == 0
    return run / "evaluation" / "quick"


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load_results(folder)


def probed(results: Results, split: str, metric: str) -> Sequence[ResultRow]:
    return [
        row
        for row in results.rows
        if (row.model, row.protocol, row.split, row.metric) == ("pre-trained", "linear_probe", split, metric)
        and not (row.subgroup or row.compared_with)
    ]


def test_every_cohort_at_hand_is_scored_and_nothing_is_called_synthetic(results: Results) -> None:
    assert all(probed(results, split, "auroc") for split in COHORTS)
    assert not any(row.synthetic for row in results.rows)
    assert not any(row.availability == "synthetic" for row in results.rows)


def test_the_internal_test_is_the_tenth_fold_one_ecg_per_patient(folder: Path, shared_data: Path) -> None:
    patient_of = {
        row["ecg_id"]: row["patient_id"]
        for row in table(shared_data / "ptbxl" / "ptbxl_database.csv")
        if row["strat_fold"] == "10"
    }
    scored = pq.read_table(folder / "predictions-ptb_xl-ptb_xl.parquet")["record_id"].to_pylist()
    assert set(scored) <= set(patient_of)
    assert len({patient_of[record] for record in scored}) == len(scored) > 40


def test_figures_are_those_of_scikit_learn_within_their_intervals(results: Results, folder: Path) -> None:
    n_checked = 0
    for split in ("ptb_xl", "challenge2021"):
        kept = pq.read_table(folder / f"predictions-ptb_xl-{split}.parquet").to_pandas()
        for metric, figure in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
            for row in probed(results, split, metric):
                if row.label == "macro" or np.isnan(row.value):
                    continue
                own = kept[kept[f"known/{row.label}"]]
                truth, score = own[f"label/{row.label}"], own[f"score/pre-trained/linear_probe/{row.label}"]
                assert row.value == pytest.approx(figure(truth, score), abs=1e-6)
                assert row.ci_low <= row.value <= row.ci_high
                n_checked += 1
    assert n_checked >= 4


def test_labels_with_few_positives_are_excluded_by_name(results: Results) -> None:
    rows = [row for row in probed(results, "ptb_xl", "average_precision") if row.label != "macro"]
    few = [row for row in rows if row.n_positives < LEAST_POSITIVES]
    assert few
    assert all(row.excluded and np.isnan(row.value) for row in few)
    assert any(not row.excluded for row in rows)


def test_what_is_missing_or_learnt_from_is_said(results: Results) -> None:
    said = "\n".join(results.warnings)
    assert "chapman_shaoxing_ningbo: no data" in said
    assert "challenge2021: " in said
    assert "their waveforms are learnt from" in said, "PTB-XL's records in the Challenge are not scored outside"
