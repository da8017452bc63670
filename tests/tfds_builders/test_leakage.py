"""The leakage gauge on texts that give everything, nothing, or only the patient away."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from tfds_builders.common import leakage, report_classifier
from tfds_builders.common.leakage import MIN_PATIENTS_PER_CLASS, age_band, gauge, leakage_of_records

WORDS = ("sinus rhythm", "lvh", "atrial fibrillation", "long qt", "left axis deviation", "normal ecg")


def _texts(rng: np.random.Generator, n: int) -> list[str]:
    return [". ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(n)]


def test_a_hospitals_habit_gives_it_away() -> None:
    rng = np.random.default_rng(0)
    hospital = rng.choice(["a", "b"], 300)
    texts = [t + (" reviewed locally" if h == "a" else "") for t, h in zip(_texts(rng, 300), hospital, strict=True)]
    told = gauge(texts, hospital.tolist(), [str(i) for i in range(300)], target="hospital")
    assert (told.n_reports, told.n_patients, told.classes, told.too_few) == (300, 300, ("a", "b"), "")
    assert told.accuracy > 0.99 > 0.7 > told.accuracy_majority
    assert told.auroc > 0.99
    assert {"reviewed", "locally", "reviewed locally"} & set(told.telling)


def test_what_is_independent_of_the_text_cannot_be_told() -> None:
    rng = np.random.default_rng(1)
    told = gauge(_texts(rng, 600), rng.choice(["x", "y", "z"], 600).tolist(), [""] * 600, target="nothing")
    assert told.n_patients == 600
    assert abs(told.auroc - 0.5) < 0.06
    assert told.accuracy < told.accuracy_majority + 0.06


def test_a_patient_recognised_again_does_not_count() -> None:
    """Each patient has a word and a sex of his own: without folds by patient the sex would be told perfectly."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(120), 5)
    sex = rng.permutation(np.repeat(["female", "male"], 60))[patients]
    texts = [f"{t} word{p}" for t, p in zip(_texts(rng, 600), patients, strict=True)]
    told = gauge(texts, sex.tolist(), [str(p) for p in patients], target="sex")
    assert told.auroc < 0.62
    assert not [term for term in told.telling if "word" in term], "terms of one patient are not shown"


def test_small_classes_are_left_out_and_one_class_is_too_few() -> None:
    few = MIN_PATIENTS_PER_CLASS - 1
    values = ["a"] * 40 + ["b"] * few + [""] * 10
    told = gauge(["text"] * len(values), values, [str(i) for i in range(len(values))], target="hospital")
    assert told.classes == ("a",)
    assert "30 patients" in told.too_few
    assert math.isnan(told.auroc)
    assert gauge([], [], [], target="sex").too_few
    one_patient = gauge(["t"] * 80, ["a", "b"] * 40, ["p"] * 80, target="sex")
    assert one_patient.too_few, "eighty reports of one patient are one patient"


def test_scores_of_a_fold_are_sklearns() -> None:
    rng = np.random.default_rng(3)
    label = rng.choice(["a", "b"], 200)
    text = np.asarray(
        [t + (" x" if y == "a" and rng.random() < 0.6 else "") for t, y in zip(_texts(rng, 200), label, strict=True)],
        object,
    )
    train, test = np.arange(120), np.arange(120, 200)
    accuracy, majority, auroc = report_classifier._fold(text, label, train, test)
    vectorizer, model = report_classifier._vectorizer(), report_classifier._classifier()
    model.fit(vectorizer.fit_transform(text[train]), label[train])
    features = vectorizer.transform(text[test])
    assert accuracy == accuracy_score(label[test], model.predict(features))
    assert auroc == pytest.approx(roc_auc_score(label[test] == "b", model.predict_proba(features)[:, 1]))
    commonest = max("ab", key=list(label[train]).count)
    assert majority == np.mean(label[test] == commonest)


def test_large_cohorts_are_drawn_down_by_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "MAX_REPORTS", 200)
    rng = np.random.default_rng(4)
    patients = [str(p) for p in np.repeat(np.arange(200), 3)]
    told = gauge(_texts(rng, 600), ["a", "b", "a"] * 200, patients, target="hospital")
    assert told.n_reports == 198
    assert told.n_patients == 66, "whole patients"


def test_records_of_a_cohort() -> None:
    rng = np.random.default_rng(5)
    n = 120
    sex = rng.choice(["female", "male"], n).tolist()
    sex[0] = "unknown"
    table = pa.table(
        {
            "window_index": [0] * n + [1],
            "report_clean": [
                f"{t} {'pregnant' if s == 'female' else ''}" for t, s in zip(_texts(rng, n), sex, strict=True)
            ]
            + [""],
            "site": ["one"] * (n + 1),
            "age_years": [*rng.choice([30.0, 70.0], n).tolist(), 30.0],
            "sex": [*sex, "male"],
            "patient_id": [str(i) for i in range(n + 1)],
        }
    )
    told = {row.target: row for row in leakage_of_records(table)}
    assert told["hospital"].too_few
    assert told["age band"].classes == ("18-39", "60-79")
    assert told["sex"].auroc > 0.95
    assert told["sex"].n_reports == n - 1, "unknown sex and further windows do not count"


@pytest.mark.parametrize(
    ("age_years", "band"),
    [(0.0, "0-17"), (17.9, "0-17"), (18.0, "18-39"), (59.9, "40-59"), (80.0, "80 and over"), (math.nan, "")],
)
def test_age_bands(age_years: float, band: str) -> None:
    assert age_band(age_years) == band
