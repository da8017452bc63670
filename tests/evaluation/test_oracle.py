"""The ceiling is good and not perfect, for every echo and rare target in every hospital, and it is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgclip_jax.evaluation.oracle import _probability
from ecgclip_jax.evaluation.registry import the_89, truth_of
from ecgclip_jax.evaluation.trivial import fill_missing, training_medians, trivial_features
from ecgclip_jax.evaluation.truth_rules import COMPARISONS, Threshold
from ecgclip_jax.signal.hospitals import load_world, synthesize_hospital
from ecgclip_jax.signal.hospitals.population import Population, draw_block

WORLD = load_world()
TARGETS = tuple(task.name for task in the_89() if task.group != "ecg")
COMPOSITE = "structural_heart_disease"


def expected_auroc(probability: np.ndarray) -> float:
    """AUROC of a probability against labels that are drawn by it, without drawing them (no noise of few positives)."""
    p = np.sort(probability)
    negatives_below = np.cumsum(1 - p) - (1 - p)
    return float((p * negatives_below).sum() / (p.sum() * (1 - p).sum() - (p * (1 - p)).sum()))


def hospital_blocks(k: int, n: int) -> list[Population]:
    return [draw_block(WORLD, WORLD.hospitals[k], b, 21) for b in range(n)]


def scores(name: str, patients: list[Population]) -> np.ndarray:
    return np.concatenate([_probability(WORLD, name, p.hidden[:, 0], p.female) for p in patients])


def truth(name: str, patients: list[Population]) -> np.ndarray:
    """Of each patient at his first examination, by the rule as written."""
    if name in WORLD.rare:
        return np.concatenate([p.conditions[name] for p in patients])
    stated = truth_of(next(t for t in the_89() if t.name == name), "synthetic_hospitals", "synthetic_hospitals")
    assert stated is not None
    rule = stated.rule
    assert isinstance(rule, Threshold)
    parts = []
    for p in patients:
        limit = np.where(p.female, rule.value_female, rule.value)
        parts.append(COMPARISONS[rule.comparison](p.echo.value[rule.measurements[0]][:, 0], limit))
    return np.concatenate(parts)


def test_the_formula_is_the_auroc_of_drawn_labels() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(1, 6, 200_000)
    drawn = rng.random(200_000) < probability
    assert expected_auroc(probability) == pytest.approx(roc_auc_score(drawn, probability), abs=0.004)


@pytest.mark.parametrize("k", range(10))
def test_the_ceiling_lies_between_070_and_090_in_every_hospital(k: int) -> None:
    patients = hospital_blocks(k, 16)
    for name in TARGETS:
        assert 0.70 <= expected_auroc(scores(name, patients)) <= 0.90, name


def test_probabilities_are_true_of_what_is_drawn() -> None:
    patients = hospital_blocks(0, 40)
    for name in (n for n in TARGETS if n != COMPOSITE):
        probability, has = scores(name, patients), truth(name, patients)
        noise = np.sqrt((probability * (1 - probability)).sum())
        drift = 0.03 * has.sum()  # the echo comes days later
        assert abs(has.sum() - probability.sum()) < 4 * noise + drift, name
        if has.sum() > 300:
            assert roc_auc_score(has, probability) == pytest.approx(expected_auroc(probability), abs=0.03), name


def test_trivial_features_stay_far_below_the_ceiling() -> None:
    """Rate, level, spread, age and sex of 330 patients, cross-validated: the waveform must be read to come near."""
    common = (
        "reduced_ejection_fraction",
        "left_atrial_dilatation",
        "increased_ventricular_mass",
        "concentric_geometry",
    )
    batches = tuple(synthesize_hospital(WORLD, WORLD.hospitals[0], range(330), 21))
    patients = [batch.patients for batch in batches]
    records = [(b.patients, r) for b in batches for r in b.records]
    ecg_uv = np.stack([r.ecg_uv for _, r in records])
    patient = np.array([int(p.patient_id[r.patient]) for p, r in records])
    age_years = np.array([p.age_years[r.patient, r.index] for p, r in records])
    features = trivial_features(ecg_uv, age_years, ["female" if p.female[r.patient] else "male" for p, r in records])
    features = fill_missing(features, training_medians(features))
    reached, ceiling = [], []
    for name in common:
        has = truth(name, patients)[patient]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        guessed = cross_val_predict(model, features, has, groups=patient, cv=GroupKFold(4), method="decision_function")
        reached.append(roc_auc_score(has, guessed))
        ceiling.append(expected_auroc(scores(name, patients)))
    assert np.mean(reached) < 0.70
    assert np.mean(ceiling) > np.mean(reached) + 0.10
