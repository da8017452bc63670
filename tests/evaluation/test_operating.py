"""Stored thresholds and temperature: fitted on validation alone, and their rows against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_score, recall_score

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.operating import SCALES, fit_operating_points, operating_rows, save_operating_points
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.metrics.thresholds import fit_threshold

COMMON = {
    "cohort": "a", "version": "1", "split": "test", "language": "en", "label_source": "independent",
    "data_fingerprint": "", "prompts_fingerprint": "", "evaluation_fingerprint": "", "code_version": "",
    "synthetic": True, "access": "open",
}  # fmt: skip
CONCEPTS = ("first", "second", "never")


def _split(seed: int, n: int = 600) -> tuple[Labels, Scored]:
    """Logits that are twice too extreme; the third label is never positive."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 3)) - (1.0, 2.0, 99.0)
    labels = Labels(CONCEPTS, rng.random((n, 3)) < expit(truth), rng.random((n, 3)) < 0.9)
    return labels, Scored(Arm("a", ""), "linear_probe", (2 * truth).astype(np.float32))


def test_points_come_from_validation_and_rows_equal_scikit_learn(tmp_path: Path) -> None:
    validation, (labels, scored) = _split(0), _split(1)
    points = fit_operating_points([(validation[0], [validation[1]])])
    assert points["a"].temperature == pytest.approx(2, abs=0.3)
    known = validation[0].known[:, 0]
    threshold = fit_threshold(validation[0].positive[known, 0], validation[1].scores[known, 0].astype(float), "youden")
    assert points["a"].thresholds["first"] == threshold
    assert "never" not in points["a"].thresholds
    stored = json.loads(save_operating_points(points, tmp_path).read_text())
    assert stored["models"]["a"]["thresholds"]["first"] == threshold

    split = TestSplit(labels, dict.fromkeys(CONCEPTS, "seen"), np.arange(600) // 2, COMMON, 1, 2, 200, 0)
    rows = {(r.label, r.metric): r for r in operating_rows(split, [scored], points)}
    assert len(rows) == 3 * len(SCALES)
    known = labels.known[:, 0]
    truth, score = labels.positive[known, 0], scored.scores[known, 0].astype(float)
    called, probability = score >= threshold, expit(score / points["a"].temperature)
    peer = LogisticRegression(C=np.inf, tol=1e-9).fit(score[:, None] / points["a"].temperature, truth)
    expected = {
        "sensitivity": recall_score(truth, called),
        "specificity": recall_score(~truth, ~called),
        "ppv": precision_score(truth, called),
        "alerts_per_1000": 1000 * called.mean(),
        "brier": brier_score_loss(truth, probability),
        "calibration_slope": peer.coef_[0, 0],
    }
    for metric, value in expected.items():
        row = rows["first", metric]
        assert row.value == pytest.approx(value, abs=1e-4), metric
        assert row.ci_low < row.value < row.ci_high
    slope = rows["first", "calibration_slope"]
    assert slope.ci_low < 1 < slope.ci_high
    intercept = rows["first", "calibration_intercept"]
    assert intercept.ci_low < 0 < intercept.ci_high
    assert 0 <= rows["first", "expected_calibration_error"].value < 0.1
    assert rows["never", "ppv"].excluded == "no_positive_in_test"
    assert "youden threshold" in rows["first", "ppv"].note


def test_what_validation_or_the_data_cannot_define_is_said() -> None:
    labels, scored = _split(2)
    blind = Labels(CONCEPTS, labels.positive & (np.arange(3) != 1), labels.known)
    points = fit_operating_points([(blind, [scored])])
    split = TestSplit(labels, dict.fromkeys(CONCEPTS, "seen"), np.arange(600), COMMON, 1, 2, 50, 0)
    rows = {(r.label, r.metric): r for r in operating_rows(split, [scored], points)}
    assert rows["second", "sensitivity"].excluded == "one_class_in_validation"
    assert np.isnan(rows["second", "sensitivity"].value)
    constant = Scored(scored.arm, "linear_probe", np.full_like(scored.scores, -1.0))
    rows = {(r.label, r.metric): r for r in operating_rows(split, [constant], points)}
    assert rows["first", "calibration_slope"].excluded == "not_defined_by_the_data"
    assert np.isfinite(rows["first", "brier"].value)
    assert operating_rows(split, [Scored(scored.arm, "zero_shot", scored.scores)], points) == []
    assert fit_operating_points([]) == {}
