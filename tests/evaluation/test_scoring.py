"""Rows of a case-enriched sample, and every figure of a row against scikit-learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.evaluation.scoring import METRICS, ranking_rows

COMMON = {
    "cohort": "a", "version": "1", "split": "test", "language": "en", "label_source": "independent",
    "data_fingerprint": "", "prompts_fingerprint": "", "evaluation_fingerprint": "", "code_version": "",
    "synthetic": True, "access": "open",
}  # fmt: skip


def _split(n: int = 400, seed: int = 0) -> tuple[TestSplit, np.ndarray]:
    """Two labels; scores that know them a little and are tied here and there."""
    rng = np.random.default_rng(seed)
    positive = rng.random((n, 2)) < (0.1, 0.3)
    labels = Labels(("first", "second"), positive, rng.random((n, 2)) < 0.9)
    scores = np.round(rng.normal(size=(n, 2)) + 1.5 * positive, 1).astype(np.float32)
    groups = dict.fromkeys(labels.concepts, "seen")
    return TestSplit(labels, groups, np.arange(n) // 2, COMMON, 5, 2, 200, 0), scores


def _row(rows: list[ResultRow], metric: str, label: str = "first", compared_with: str = "") -> ResultRow:
    (row,) = (
        r for r in rows if (r.metric, r.label, r.compared_with) == (metric, label, compared_with) and r.model == "a"
    )
    return row


@pytest.mark.parametrize("weighted", [False, True])
def test_every_figure_equals_scikit_learn(weighted: bool) -> None:
    split, scores = _split()
    weight = np.random.default_rng(1).uniform(0.5, 4, len(scores)) if weighted else None
    rows = ranking_rows(replace(split, sampling=weight), [Scored(Arm("a", ""), "linear_probe", scores)])
    known = split.labels.known[:, 0]
    truth, score = split.labels.positive[known, 0], scores[known, 0]
    own = np.ones(len(truth)) if weight is None else weight[known]
    fpr, tpr, _ = roc_curve(truth, score, sample_weight=own, drop_intermediate=False)
    prevalence = own[truth].sum() / own.sum()
    balanced = np.where(truth, own, own * own[truth].sum() * 19 / own[~truth].sum())
    average = average_precision_score(truth, score, sample_weight=own)
    expected = {
        "auroc": roc_auc_score(truth, score, sample_weight=own),
        "average_precision": average,
        "lift": average / prevalence,
        "average_precision_at_prevalence_0.05": average_precision_score(truth, score, sample_weight=balanced),
        "sensitivity_at_specificity_0.9": tpr[fpr <= 0.1 + 1e-12].max(),
    }
    for metric, value in expected.items():
        row = _row(rows, metric)
        assert row.value == pytest.approx(value, abs=1e-9), metric
        assert row.ci_low < row.value < row.ci_high
    assert _row(rows, "average_precision").chance == pytest.approx(prevalence)
    assert _row(rows, "average_precision_at_prevalence_0.05").chance == 0.05
    assert 0 < _row(rows, "sensitivity_in_top_0.05").value < 1
    assert _row(rows, "auroc").n_positives == truth.sum(), "counts are of records, not of weights"
    macro = [r.metric for r in rows if r.label == "macro"]
    assert "lift" not in macro
    assert set(macro) == {m.name for m in METRICS} - {"lift"}


def test_a_case_enriched_sample_gives_the_figures_of_its_source() -> None:
    source, scores = _split(3000)
    known = np.ones_like(source.labels.known)
    labels = Labels(source.labels.concepts, source.labels.positive, known)
    source = replace(source, labels=labels, patient=np.arange(3000))
    kept = labels.positive.any(axis=1) | (np.random.default_rng(3).random(3000) < 0.25)
    weight = np.where(labels.positive.any(axis=1), 1.0, 1 / 0.25)[kept]
    sample = replace(
        source,
        labels=Labels(labels.concepts, labels.positive[kept], known[kept]),
        patient=np.arange(int(kept.sum())),
        sampling=weight,
    )
    whole = ranking_rows(source, [Scored(Arm("a", ""), "linear_probe", scores)])
    back = ranking_rows(sample, [Scored(Arm("a", ""), "linear_probe", scores[kept])])
    naive = ranking_rows(replace(sample, sampling=None), [Scored(Arm("a", ""), "linear_probe", scores[kept])])
    for metric in ("auroc", "average_precision", "lift"):
        truth = _row(whole, metric)
        assert _row(back, metric).ci_low < truth.value < _row(back, metric).ci_high
        assert _row(back, metric).value == pytest.approx(truth.value, rel=0.12)
    assert _row(naive, "average_precision").ci_low > _row(whole, "average_precision").value


def test_models_that_rank_alike_differ_by_nothing() -> None:
    split, scores = _split()
    arms = [Scored(Arm(name, ""), "linear_probe", s) for name, s in (("a", scores), ("b", 2 * scores + 1))]
    rows = ranking_rows(split, arms)
    for metric in METRICS:
        row = _row(rows, metric.name, compared_with="b")
        assert (row.value, row.ci_low, row.ci_high) == pytest.approx((0, 0, 0), abs=1e-12)
        assert math.isnan(row.chance)


def test_repeats_are_averaged_and_paired_between_arms() -> None:
    split, scores = _split()
    rng = np.random.default_rng(5)
    noisy = [(scores + rng.normal(0, noise, scores.shape)).astype(np.float32) for noise in (0.2, 0.2, 1.5, 1.5)]
    scored = [
        Scored(Arm("ab"[i // 2], ""), "fine_tune", s, fraction=0.1, repeat=1 - i % 2) for i, s in enumerate(noisy)
    ]
    rows = ranking_rows(split, scored)
    known = split.labels.known[:, 0]
    single = [roc_auc_score(split.labels.positive[known, 0], s[known, 0]) for s in noisy]
    assert _row(rows, "auroc").value == pytest.approx(np.mean(single[:2]))
    assert {(r.label_fraction, r.n_repeats) for r in rows} == {(0.1, 2)}
    difference = _row(rows, "auroc", compared_with="b")
    assert difference.value == pytest.approx(np.mean(single[:2]) - np.mean(single[2:]))
    assert difference.ci_low < difference.value < difference.ci_high
    uneven = ranking_rows(split, scored[:3])
    assert not [r for r in uneven if r.compared_with], "arms that were not fitted equally often are not paired"


def test_labels_of_different_sources_have_no_common_mean() -> None:
    split, scores = _split()
    sources = {"first": "report", "second": "independent"}
    apart = replace(split, label_sources=sources, groups=sources, macro_min_labels=1)
    rows = ranking_rows(apart, [Scored(Arm("a", ""), "linear_probe", scores)])
    macros = {r.label_group: r for r in rows if r.label == "macro" and r.metric == "auroc"}
    assert set(macros) == {"report", "independent"}
    assert macros["report"].value == _row(rows, "auroc").value
    assert {r.label: r.label_source for r in rows if r.label != "macro"} == sources
