"""Suites on cohorts in memory whose truth is known: what is found, what is said of it, and planted faults."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score
from suite_world import COHORT, ECG_TASKS, TASKS, SuiteFake, make_split, make_suite, make_world, opener

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.embedding_map import NO_LABEL
from ecgclip_jax.evaluation.index_ecg import SENSITIVITY_WINDOWS
from ecgclip_jax.evaluation.protocols.lead_subsets import LEAD_SUBSETS
from ecgclip_jax.evaluation.results import ResultRow, Results
from ecgclip_jax.evaluation.suites import maps, opening, runner
from ecgclip_jax.evaluation.suites.context import SuiteModels
from ecgclip_jax.evaluation.suites.named import SUITES, suite
from ecgclip_jax.evaluation.suites.runner import SuiteOutcome, run_suite
from ecgclip_jax.evaluation.suites.summary import FIGURE, suite_summary
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.suites import Claim, LeadSubset, SuiteSpec, TestCohort


def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    world: dict[str, CohortSplit] | None = None,
    spec: SuiteSpec | None = None,
    model: SuiteFake | None = None,
) -> SuiteOutcome:
    monkeypatch.setattr(opening, "open_cohort", opener(make_world() if world is None else world))
    models = SuiteModels(model or SuiteFake(), lambda seed: SuiteFake(0.0, seed + 1))
    return run_suite(spec or make_suite(), models, "nowhere", folder, show_progress=False)


def macro(results: Results, source: str, **conditions: Any) -> ResultRow:
    asked = {"label": "macro", "metric": "auroc", "protocol": "linear_probe", "model": "pre-trained", "subgroup": ""}
    asked |= {"label_fraction": 1.0, "split": "internal", "label_group": source, "axis": ""} | conditions
    (row,) = results.find(**asked)
    return row


def test_skill_is_found_apart_by_source_of_labels_and_missing_cohorts_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = run(monkeypatch, tmp_path)
    results = outcome.results
    for source in ("report", "independent"):
        assert macro(results, source).value > 0.85
        assert abs(macro(results, source, model="untrained seed 0").value - 0.5) < 0.1
        difference = macro(results, source, compared_with="untrained seed 0")
        assert difference.ci_low > 0
        assert macro(results, source, label_fraction=0.2).n_repeats == 2
        assert macro(results, source, protocol="nearest_neighbours").value > 0.75
    assert {r.label_group for r in results.rows if r.label == "macro"} == {"report", "independent", "hospital"}
    assert {r.availability for r in results.rows} == {"synthetic"}
    assert any("gone: no data" in warning for warning in results.warnings)
    ceiling = results.find(protocol="oracle", split="internal", metric="auroc")
    assert {r.label for r in ceiling if not r.excluded} >= {"reduced_ejection_fraction"}
    assert {r.excluded for r in ceiling if r.label in ECG_TASKS} == {"stands_on_the_tracing_itself"}
    subgroups = {r.subgroup for r in results.rows}
    assert {"sex female", "device cart a", "age 18 to 39"} <= subgroups
    hospital = results.find(protocol="hospital_probe", label="macro", model="pre-trained")
    assert 0.3 < hospital[0].value < 0.7, "both hospitals look alike"
    ejection_fraction = results.find(label="ejection_fraction", split="internal", metric="pearson_r")
    assert ejection_fraction[0].value > 0.6, "it is told from the waveform"
    assert any("survival: not evaluated: time to event: expected events" in w for w in results.warnings)
    table = pq.read_table(tmp_path / "evaluation" / "tiny" / f"predictions-{COHORT}-internal.parquet")
    scores = table.column("score/pre-trained/linear_probe/atrial_fibrillation").to_numpy()
    truth = table.column("label/atrial_fibrillation").to_numpy()
    (row,) = results.find(
        label="atrial_fibrillation", metric="auroc", protocol="linear_probe", model="pre-trained",
        label_fraction=1.0, split="internal",
    )  # fmt: skip
    assert row.value == pytest.approx(roc_auc_score(truth, scores))
    printed = io.StringIO()
    Console(width=60, file=printed).print(suite_summary(make_suite(), outcome))
    assert "…" not in printed.getvalue(), "no figure is cut where it is narrow"
    assert f"{macro(results, 'report', metric=FIGURE).value:.3f}" in printed.getvalue()


def test_a_cohort_counts_with_the_splits_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tuple(Source(cohort=COHORT, split=split) for split in ("birch", "gone"))
    spec = make_suite()
    both = spec.cohorts[0].replace({"external": (TestCohort(name="both", sources=sources),)})
    spec = spec.replace({"cohorts": (both,), "fractions": (1.0,), "draws": 1})
    results = run(monkeypatch, tmp_path, spec=spec).results
    assert macro(results, "report", split="both").value > 0.8
    assert not any("both" in warning and "no data" in warning for warning in results.warnings)


def test_a_map_of_the_test_embeddings_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(maps, "umap_points", lambda embedding: np.asarray(embedding[:, :2], np.float32))
    run(monkeypatch, tmp_path, spec=make_suite(protocols=("zero_shot",), map_records=60))
    kept = pq.read_table(maps.map_file(tmp_path / "evaluation" / "tiny", COHORT)).to_pydict()
    assert len(kept["x"]) == 60
    assert set(kept["test"]) == {"internal", "birch"}
    assert set(kept["label"]) <= {*TASKS, NO_LABEL}


def test_sampling_weights_lead_back_to_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = np.random.default_rng(9).choice([1.0, 6.0], 200)
    results = run(monkeypatch, tmp_path, make_world(test=make_split("test", 2, weight=weight))).results
    table = pq.read_table(tmp_path / "evaluation" / "tiny" / f"predictions-{COHORT}-internal.parquet")
    scores = table.column("score/pre-trained/linear_probe/atrial_fibrillation").to_numpy()
    truth = table.column("label/atrial_fibrillation").to_numpy()
    (row,) = results.find(
        label="atrial_fibrillation", metric="average_precision", protocol="linear_probe", model="pre-trained",
        label_fraction=1.0, split="internal",
    )  # fmt: skip
    assert row.value == pytest.approx(average_precision_score(truth, scores, sample_weight=weight))
    assert row.prevalence == pytest.approx((weight * truth).sum() / weight.sum())
    stored = json.loads((tmp_path / "evaluation" / "tiny" / f"operating_points-{COHORT}.json").read_text())
    threshold = stored["models"]["pre-trained, linear_probe"]["thresholds"]["atrial_fibrillation"]
    called = weight * (scores.astype(np.float32) >= np.float32(threshold))
    asked = {"label": "atrial_fibrillation", "protocol": "linear_probe", "model": "pre-trained", "split": "internal"}
    found = {r.metric: r.value for r in results.find(**asked, label_fraction=1.0)}
    assert found["ppv"] == pytest.approx((called * truth).sum() / called.sum())
    assert found["alerts_per_1000"] == pytest.approx(1000 * called.sum() / weight.sum())
    assert found["sensitivity_at_specificity_0.9"] > 0.5
    mean = macro(results, "report", metric="brier")
    each = [r.value for r in results.find(**asked | {"label": "sinus_bradycardia"}, metric="brier")]
    assert mean.n_labels == 3
    assert mean.ci_low < mean.value < mean.ci_high
    assert 0 < each[0] < 0.25


def test_a_stopped_suite_goes_on_and_test_labels_reach_no_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = SuiteFake()
    first = run(monkeypatch, tmp_path, model=model).results
    n_calls = len(model.calls)
    assert run(monkeypatch, tmp_path, model=model).results.rows == first.rows
    assert len(model.calls) == n_calls, "embeddings are kept"
    flipped = make_world()
    signal = np.random.default_rng(2).random((200, len(TASKS))) < 0.3
    flipped["test"] = make_split("test", 2, truth=~signal, signal=signal)
    other = tmp_path / "other"
    after = run(monkeypatch, other, flipped).results
    paths = [base / "evaluation" / "tiny" / f"predictions-{COHORT}-internal.parquet" for base in (tmp_path, other)]
    name = "score/pre-trained/linear_probe/sinus_bradycardia"
    same = [pq.read_table(path).column(name).to_numpy() for path in paths]
    assert np.array_equal(*same), "what is fitted and chosen cannot depend on test labels"
    assert macro(after, "report").value == pytest.approx(1 - macro(first, "report").value, abs=1e-6)


def test_shuffled_labels_score_a_half(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    shuffled = {
        name: make_split(name, seed, signal=rng.random((200, len(TASKS))) < 0.3)
        for seed, name in enumerate(("train", "validation", "test", "birch"))
    }
    results = run(monkeypatch, tmp_path, shuffled).results
    for source in ("report", "independent"):
        assert abs(macro(results, source).value - 0.5) < 0.1


def test_permuted_label_columns_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signal = np.random.default_rng(2).random((200, len(TASKS))) < 0.3
    swapped = make_split("test", 2, truth=signal[:, [1, 2, 0, 3, 4]], signal=signal)
    results = run(monkeypatch, tmp_path, make_world(test=swapped)).results
    assert any("internal: label columns look permuted" in warning for warning in results.warnings)
    assert not any("birch: label columns" in warning for warning in results.warnings)


def test_a_leaked_patient_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ids = ["train-0-7", *(f"test-2-{i}" for i in range(1, 200))]
    with pytest.raises(EvaluationError, match="also in train"):
        run(monkeypatch, tmp_path, make_world(test=make_split("test", 2, patient_ids=ids)))


def test_records_under_another_name_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = make_world()
    shared = make_split("train", 0)
    outcome = run(monkeypatch, tmp_path, world | {"birch": shared, "gone": world["birch"]})
    assert any("birch: 200 records left out, their waveforms are learnt from" in w for w in outcome.results.warnings)
    assert any("birch: no data: birch: no record" in warning for warning in outcome.results.warnings)
    assert macro(outcome.results, "report", split="gone").value > 0.8


def test_a_constant_model_scores_a_half_and_the_prevalence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Constant(SuiteFake):
        def encode_ecg(self, ecg_uv: np.ndarray, mains_hz: np.ndarray | None = None, batch: int = 64) -> Any:
            made = super().encode_ecg(ecg_uv, mains_hz, batch)
            return type(made)(np.ones_like(made.embedding), np.ones_like(made.features))

    results = run(monkeypatch, tmp_path, model=Constant(seed=99)).results
    assert macro(results, "report").value == 0.5
    row = macro(results, "report", metric="average_precision")
    assert row.value == pytest.approx(row.chance)


def test_what_cannot_be_scored_has_a_reason_and_the_suite_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    truth = np.random.default_rng(1).random((200, len(TASKS))) < 0.3
    never = truth & (np.arange(len(TASKS)) != 1)
    rare = truth.copy()
    rare[:, 0] = np.arange(200) < 6
    world = make_world(
        train=make_split("train", 0, truth=never),
        test=make_split("test", 2, truth=rare),
        birch=make_split("birch", 3, known_patients=False),
    )
    outcome = run(monkeypatch, tmp_path, world, make_suite(min_test_positives=10))
    left_out = json.loads(macro(outcome.results, "report").excluded_labels)
    assert left_out["left_bundle_branch_block"] == "one_class_in_training"
    assert left_out["atrial_fibrillation"] == "few_test_positives"
    assert macro(outcome.results, "report").excluded == "few_labels_for_a_macro_mean"
    assert any("birch: 200 of 200 records have no patient id" in w for w in outcome.results.warnings)
    assert macro(outcome.results, "independent").value > 0.8


def claim(**changes: Any) -> Claim:
    values = {
        "name": "c", "text": "better", "kind": "superior", "first": "pre-trained", "second": "untrained seed 0",
        "protocol": "linear_probe", "first_fraction": 0.2, "second_fraction": 0.2, "metric": "average_precision",
        "label_source": "report", "on": "each", "alpha": 0.05, "at_least": 2,
    }  # fmt: skip
    return Claim(**values | changes)


def test_claims_hold_where_they_are_true_and_only_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    claims = (
        claim(name="true"),
        claim(name="reversed", first="untrained seed 0", second="pre-trained"),
        claim(
            name="few", kind="non_inferior", second_fraction=1.0, on="internal", margin=0.05, at_least=1, metric="auroc"
        ),
        claim(name="missing", protocol="fine_tune"),
    )
    outcome = run(monkeypatch, tmp_path, spec=make_suite(claims=claims))
    verdicts = {v.claim.name: v for v in outcome.verdicts}
    assert verdicts["true"].holds
    assert {f.cohort for f in verdicts["true"].findings} == {"internal", "birch"}
    finding = verdicts["true"].findings[0]
    value = macro(outcome.results, "report", metric="average_precision", label_fraction=0.2).value
    assert finding.first == pytest.approx(value)
    assert finding.p_holm >= finding.p == pytest.approx(1 / 201)
    assert not verdicts["reversed"].holds
    assert verdicts["few"].holds
    assert math.isnan(verdicts["few"].findings[0].p)
    assert verdicts["missing"].findings[0].reason
    stored = json.loads((tmp_path / "evaluation" / "tiny" / "claims.json").read_text())
    assert [c["holds"] for c in stored] == [True, False, True, False]


def test_one_thing_is_changed_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fake reads five samples of lead I: it needs no other lead, but the rate; one patient's echo is far away."""
    world = make_world()
    table = world["test"].table
    values = table.column("measurement_values").to_pylist()
    values[0][2] = 200.0
    name = "measurement_values"
    column, field = table.schema.get_field_index(name), table.schema.field(name)
    world["test"] = replace(world["test"], table=table.set_column(column, field, [pa.array(values, field.type)]))
    monkeypatch.setattr(runner, "SENSITIVITY_WINDOWS", SENSITIVITY_WINDOWS[2:3])
    spec = make_suite(
        lead_subsets=("12 leads", "1 lead"), rates_hz=(50.0, 500.0), echo_windows=True, bootstrap_replicates=20,
        fractions=(1.0,), draws=1, untrained_seeds=0, protocols=("linear_probe",), map_records=0,
    )  # fmt: skip
    results = run(monkeypatch, tmp_path, world, spec).results
    assert {(r.axis, r.setting) for r in results.rows} == {
        ("", ""), ("leads", "1 lead"), ("rate_hz", "50 Hz"), ("index_ecg", "365 days before the echo"),
        ("index_ecg", "30 days before the echo"),
    }  # fmt: skip
    usual = macro(results, "report", axis="")
    assert macro(results, "report", axis="leads").value == usual.value
    assert macro(results, "report", axis="rate_hz").value < usual.value - 0.1
    asked = {"label": "pulmonary_hypertension", "split": "internal", "metric": "auroc", "model": "pre-trained"}
    counts = {r.setting: r.n for r in results.find(**asked, protocol="linear_probe", label_fraction=1.0)}
    assert counts[""] == counts["30 days before the echo"] == 199
    assert counts["365 days before the echo"] == 200
    assert not results.find(label="sinus_bradycardia", axis="index_ecg")
    assert set(LEAD_SUBSETS) == set(get_args(LeadSubset))


@pytest.mark.parametrize("name", sorted(SUITES))
def test_shipped_suites_are_consistent(name: str) -> None:
    spec = suite(name)
    assert spec.name == name
    assert spec.min_test_positives >= 10 or name.endswith("_as_released"), "published protocols count every label"
    assert SuiteSpec.model_validate_json(spec.model_dump_json()) == spec


def test_claims_that_no_result_could_prove_are_refused() -> None:
    claims = (claim(alpha=0.01), claim(name="other", alpha=0.01))
    with pytest.raises(ValidationError, match=r"6 tests at 0\.01 after Holm's correction need at least 600"):
        make_suite(claims=claims)
    make_suite(claims=claims, permutations=600)


def test_an_unknown_suite_or_task_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"there are .*quick"):
        suite("gone")
    with pytest.raises(EvaluationError, match="no such tasks nonsense"):
        opening.suite_tasks(make_suite(tasks=("nonsense",)))
