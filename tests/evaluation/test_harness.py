"""The whole evaluation on a world whose truth is known, and the faults that must not pass unseen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_world import CONCEPTS, FakeModel, make_experiment, make_split
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.data.labels import LabelError
from ecgclip_jax.data.sources import CohortError, CohortSplit
from ecgclip_jax.evaluation import harness, training_reports
from ecgclip_jax.evaluation.results import Results, load_results
from ecgclip_jax.evaluation.summary import summary_table
from ecgclip_jax.evaluation.tasks import EvaluationError, label_groups
from ecgclip_jax.spec.experiment import Experiment, Source

Evaluate = Callable[..., Results]


@pytest.fixture(scope="module")
def splits() -> dict[str, CohortSplit]:
    return {
        "train": make_split("train", 1, 90),
        "validation": make_split("validation", 2),
        "test": make_split("test", 3, 80),
    }


def _evaluate(
    patch: pytest.MonkeyPatch,
    splits: dict[str, CohortSplit],
    workdir: Path,
    experiment: Experiment,
    model: FakeModel | None = None,
    **options: object,
) -> Results:
    """Evaluates on in-memory splits; the untrained model has no skill."""

    def open_cohort(data_dir: str | Path, source: Source) -> CohortSplit:
        return splits[source.split]

    patch.setattr(harness, "open_cohort", open_cohort)
    patch.setattr(training_reports, "open_cohort", open_cohort)
    baselines = {7: FakeModel(experiment, skill=0.0, seed=7)}
    model = model or FakeModel(experiment)
    spec = experiment.evaluation
    return harness.evaluate(model, workdir, spec, workdir, untrained=baselines, show_progress=False, **options)


@pytest.fixture(scope="module")
def honest(splits: dict[str, CohortSplit], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """An evaluation without any fault."""
    with pytest.MonkeyPatch.context() as patch:
        return _evaluate(patch, splits, tmp_path_factory.mktemp("honest"), make_experiment())


@pytest.fixture
def evaluate(splits: dict[str, CohortSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Evaluates with some splits replaced."""

    def run(experiment: Experiment | None = None, model: FakeModel | None = None, **options: object) -> Results:
        given = {name: options.pop(name) for name in ("train", "validation", "test") if name in options}
        return _evaluate(monkeypatch, splits | given, tmp_path, experiment or make_experiment(), model, **options)

    return run


def _one(results: Results, **conditions: object):
    (row,) = results.find(**conditions)
    return row


def test_skill_is_found_baselines_stay_at_chance_and_the_difference_has_its_interval(honest: Results) -> None:
    results = honest
    macro = {"label": "macro", "label_group": "all", "metric": "auroc"}
    for protocol in ("zero_shot", "linear_probe"):
        trained = _one(results, model="pre-trained", protocol=protocol, **macro)
        untrained = _one(results, model="untrained seed 7", protocol=protocol, **macro)
        assert trained.value > 0.8
        assert trained.ci_low < trained.value < trained.ci_high
        assert 0.4 < untrained.value < 0.6
        difference = _one(results, protocol=protocol, compared_with="untrained seed 7", **macro)
        assert difference.value == pytest.approx(trained.value - untrained.value)
        assert difference.ci_low > 0
        assert difference.n_labels == len(CONCEPTS)
    trivial = _one(results, model="trivial features", protocol="linear_probe", **macro)
    assert 0.4 < trivial.value < 0.75
    recall = _one(results, model="pre-trained", label="ecg_to_text", metric="recall@10")
    assert recall.value > 1.5 * recall.chance
    assert not results.find(model="trivial features", protocol="zero_shot")


def test_values_equal_scikit_learn_on_the_stored_predictions(honest: Results) -> None:
    results = honest
    stored = pq.read_table(results.folder / "predictions-fake-1.0.0-test.parquet").to_pandas()
    assert stored["record_id"].tolist() == [f"test-3-{i}" for i in range(len(stored))]
    for concept in CONCEPTS:
        positive, score = stored[f"label/{concept}"], stored[f"score/pre-trained/linear_probe/{concept}"]
        row = _one(results, model="pre-trained", protocol="linear_probe", label=concept, metric="auroc")
        assert row.value == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
        average = _one(results, model="pre-trained", protocol="linear_probe", label=concept, metric="average_precision")
        assert average.value == pytest.approx(average_precision_score(positive, score), abs=1e-12)
        assert average.chance == average.prevalence == positive.mean()
        assert row.n_positives == positive.sum()
    per_label = [
        _one(results, model="pre-trained", protocol="zero_shot", label=c, metric="auroc").value for c in CONCEPTS
    ]
    macro = _one(results, model="pre-trained", protocol="zero_shot", label="macro", label_group="all", metric="auroc")
    assert macro.value == pytest.approx(np.mean(per_label))


def test_concepts_that_no_report_names_are_reported_apart(honest: Results) -> None:
    results = honest
    groups = {r.label: r.label_group for r in results.find(model="pre-trained", protocol="zero_shot", metric="auroc")}
    assert [groups[c] for c in CONCEPTS] == ["seen"] * 4 + ["unseen"] * 3
    assert _one(results, model="pre-trained", protocol="zero_shot", label="macro", label_group="unseen", metric="auroc")


def test_what_cannot_be_scored_stays_listed_with_its_reason(honest: Results, evaluate: Evaluate) -> None:
    row = _one(honest, model="pre-trained", protocol="zero_shot", label="long_qt", metric="auroc")
    assert (row.excluded, row.n_positives) == ("no_positive_in_test", 0)
    assert math.isnan(row.value)
    macro = _one(honest, model="pre-trained", protocol="zero_shot", label="macro", label_group="all", metric="auroc")
    left_out = json.loads(macro.excluded_labels)
    assert left_out["long_qt"] == "no_positive_in_test"
    assert left_out["sinus_rhythm"] == "no_negative_in_test"
    few = evaluate(make_experiment(macro_min_labels=20))
    row = _one(few, model="pre-trained", protocol="zero_shot", label="macro", label_group="all", metric="auroc")
    assert row.excluded == "few_labels_for_a_macro_mean"
    rare = evaluate(make_experiment(min_test_positives=10_000))
    row = _one(rare, model="pre-trained", protocol="zero_shot", label=CONCEPTS[0], metric="auroc")
    assert row.excluded == "few_test_positives"


def test_results_and_embeddings_are_kept_and_used_again(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate()
    loaded = load_results(first.folder)
    assert loaded.table().equals(first.table())
    assert loaded.warnings == first.warnings
    content = json.loads((first.folder / "results.json").read_text())
    assert len(content["rows"]) == len(first.rows)
    monkeypatch.setattr(FakeModel, "encode_ecg", lambda *_: pytest.fail("embeddings were not taken from the store"))
    again = evaluate().table().drop_columns("code_version")
    assert again.equals(first.table().drop_columns("code_version"))
    (first.folder / "embeddings" / "ecg-pre-trained-fake-1.0.0-test.npz").write_bytes(b"broken")
    with pytest.raises(pytest.fail.Exception, match="not taken from the store"):
        evaluate()


def test_shuffled_labels_score_a_half(evaluate: Evaluate) -> None:
    rng = np.random.default_rng(0)
    shuffled = {n: make_split(n, s, p) for n, s, p in (("train", 1, 90), ("test", 3, 200))}
    for name, split in shuffled.items():
        codes = split.table.column("label_codes").take(pa.array(rng.permutation(len(split))))
        position = split.table.column_names.index("label_codes")
        shuffled[name] = replace(split, table=split.table.set_column(position, "label_codes", codes))
    results = evaluate(**shuffled)
    for protocol in ("zero_shot", "linear_probe"):
        row = _one(results, model="pre-trained", protocol=protocol, label="macro", label_group="all", metric="auroc")
        assert row.value == pytest.approx(0.5, abs=0.05)


def test_constant_predictor_scores_a_half_and_the_prevalence(evaluate: Evaluate) -> None:
    class Constant(FakeModel):
        def encode_ecg(self, ecg_uv, mains_hz=None, batch=64):
            encoded = super().encode_ecg(ecg_uv, mains_hz, batch)
            return replace(encoded, embedding=np.ones_like(encoded.embedding), features=np.ones_like(encoded.features))

    results = evaluate(model=Constant(make_experiment(), seed=99))
    for protocol in ("zero_shot", "linear_probe"):
        for concept in CONCEPTS:
            area = _one(results, model="pre-trained", protocol=protocol, label=concept, metric="auroc")
            average = _one(results, model="pre-trained", protocol=protocol, label=concept, metric="average_precision")
            assert (area.value, area.ci_low, area.ci_high) == (0.5, 0.5, 0.5)
            assert average.value == pytest.approx(average.prevalence, abs=1e-12)


def test_scores_that_are_not_finite_are_named_and_have_no_macro(evaluate: Evaluate) -> None:
    class Broken(FakeModel):
        def encode_ecg(self, ecg_uv, mains_hz=None, batch=64):
            encoded = super().encode_ecg(ecg_uv, mains_hz, batch)
            return replace(encoded, embedding=np.full_like(encoded.embedding, np.nan))

    results = evaluate(model=Broken(make_experiment(), seed=98))
    conditions = {"model": "pre-trained", "protocol": "zero_shot", "metric": "auroc"}
    assert _one(results, label=CONCEPTS[0], **conditions).excluded == "scores_not_finite"
    assert _one(results, label="macro", label_group="all", **conditions).excluded == "scores_not_finite"
    healthy = _one(results, **conditions | {"model": "untrained seed 7"}, label="macro", label_group="all")
    assert healthy.n_labels == len(CONCEPTS)
    assert _one(results, model="pre-trained", label="ecg_to_text", metric="recall@1").excluded == "scores_not_finite"


def test_permuted_label_columns_are_caught(honest: Results, evaluate: Evaluate) -> None:
    swap = dict(zip(CONCEPTS, (*CONCEPTS[1:], CONCEPTS[0]), strict=True))
    results = evaluate(test=make_split("test", 3, 80, codes=swap))
    assert any("label columns look permuted" in w and "atrial_fibrillation fits" in w for w in results.warnings)
    assert not any("permuted" in w for w in honest.warnings)


def _exposure(folder: Path, split: CohortSplit, rows: list[int], *, waveform_only: bool = False) -> Path:
    part = split.table.take(pa.array(rows))
    table = pa.table(
        {
            "cohort": ["other" if waveform_only else split.cohort] * len(rows),
            "record_id": ["x"] * len(rows),
            "patient_id": part.column("patient_id"),
            "waveform_sha256": part.column("waveform_sha256") if waveform_only else pa.array(["y"] * len(rows)),
            "keyed": [False] * len(rows),
        }
    )
    pq.write_table(table, folder / "exposure.parquet")
    return folder / "exposure.parquet"


@pytest.mark.parametrize("waveform_only", [False, True])
def test_a_leaked_patient_or_waveform_is_refused_left_out_or_flagged(
    evaluate: Evaluate, splits: dict[str, CohortSplit], tmp_path: Path, waveform_only: bool
) -> None:
    exposure = _exposure(tmp_path, splits["test"], [0], waveform_only=waveform_only)
    with pytest.raises(EvaluationError, match="seen in pre-training"):
        evaluate(exposure=exposure)
    n = len(splits["test"])
    flagged = evaluate(exposure=exposure, on_overlap="flag")
    assert any("KEPT" in w for w in flagged.warnings)
    assert flagged.rows[0].n == n
    excluded = evaluate(exposure=exposure, on_overlap="exclude")
    assert any("left out" in w for w in excluded.warnings)
    assert excluded.rows[0].n < n


def test_without_an_exposure_table_the_overlap_is_said_to_be_unchecked(honest: Results) -> None:
    assert any("was not checked" in w for w in honest.warnings)


def test_a_patient_in_two_roles_is_refused(evaluate: Evaluate, splits: dict[str, CohortSplit]) -> None:
    with pytest.raises(EvaluationError, match="must not share patients"):
        evaluate(validation=replace(splits["train"], split="validation"))


def test_a_label_without_a_positive_in_validation_is_noted_and_scored(evaluate: Evaluate) -> None:
    rng = np.random.default_rng(5)
    labels = rng.random((200, len(CONCEPTS))) < 0.35
    labels[:, 0] = False
    results = evaluate(validation=make_split("validation", 2, labels=labels))
    row = _one(results, model="pre-trained", protocol="linear_probe", label=CONCEPTS[0], metric="auroc")
    assert row.value > 0.8
    assert "one class only in validation" in row.note
    results = evaluate(train=make_split("train", 1, 90, labels=labels))
    row = _one(results, model="pre-trained", protocol="linear_probe", label=CONCEPTS[0], metric="auroc")
    assert row.excluded == "one_class_in_training"
    macro = _one(
        results, model="pre-trained", protocol="linear_probe", label="macro", label_group="all", metric="auroc"
    )
    assert json.loads(macro.excluded_labels)[CONCEPTS[0]] == "one_class_in_training"


def test_records_without_patient_ids_are_their_own_patients_and_the_table_says_so(evaluate: Evaluate) -> None:
    results = evaluate(test=make_split("test", 3, 80, known_patients=False))
    assert any("no patient id" in w for w in results.warnings)
    assert results.rows[0].n_patients == results.rows[0].n


def test_prompts_in_a_language_that_no_report_is_in_are_noted(evaluate: Evaluate) -> None:
    results = evaluate(train=make_split("train", 1, 90, language="de"))
    note = "prompt language 'en' is absent from the training reports"
    assert any(note in w for w in results.warnings)
    assert note in _one(results, model="pre-trained", protocol="zero_shot", label=CONCEPTS[0], metric="auroc").note


def test_training_reports_that_are_not_at_hand_leave_groups_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(data_dir: str | Path, source: Source) -> CohortSplit:
        raise CohortError("not prepared here")

    monkeypatch.setattr(training_reports, "open_cohort", gone)
    reports = training_reports.read_training_reports(make_experiment().data, "nowhere")
    assert reports.named is None
    assert label_groups(CONCEPTS, reports.named)["dextrocardia"] == "unknown"
    assert "not at hand" in reports.language_note("en")


def test_above_open_access_nothing_per_record_is_kept_and_small_cells_are_suppressed(evaluate: Evaluate) -> None:
    private = make_split("test", 3, 20, access="credentialed")
    results = evaluate(make_experiment(min_test_positives=1), test=private)
    assert not (results.folder / "embeddings").exists()
    stored = pq.read_table(results.folder / "predictions-fake-1.0.0-test.parquet")
    assert "record_id" not in stored.column_names
    assert {r.access for r in results.rows} == {"credentialed"}
    counts = {r.n_positives for r in results.rows if r.n_positives is not None}
    assert all(count == 0 or count >= 10 for count in counts)
    suppressed = [r for r in results.rows if r.excluded == "small_cell_suppressed"]
    assert suppressed
    assert all(math.isnan(r.value) and math.isnan(r.prevalence) for r in suppressed)
    full = evaluate(make_experiment(min_test_positives=1), test=private, with_patient_data=True)
    assert (full.folder / "embeddings").exists()
    assert min(r.n_positives for r in full.rows if r.n_positives) < 10


def test_the_printed_table_says_what_it_is(honest: Results) -> None:
    console = Console(width=220)
    with console.capture() as captured:
        console.print(summary_table(honest))
    words = ("SYNTHETIC", "pre-trained - untrained seed 7", "trivial features", "unseen", "patient draws", "not scored")
    for word in words:
        assert word in captured.get()


def test_nothing_to_test_on_and_an_unknown_vocabulary_are_said(evaluate: Evaluate) -> None:
    with pytest.raises(EvaluationError, match="names no source"):
        evaluate(make_experiment(test=()))
    with pytest.raises(LabelError, match="label_vocabulary is 'icd'"):
        evaluate(make_experiment(label_vocabulary="icd"))
    with pytest.raises(LabelError, match="no record has labels in the vocabulary 'scp'"):
        evaluate(make_experiment(label_vocabulary="scp"))


def test_without_validation_there_is_no_probe_and_it_is_said(evaluate: Evaluate) -> None:
    results = evaluate(make_experiment(validation=()))
    assert any(w.startswith("no linear probe") for w in results.warnings)
    assert not results.find(protocol="linear_probe")
