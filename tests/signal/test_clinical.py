"""Risk factors and follow-up of the synthetic world: beside the rest, plausible, partly told by the ECG, with gaps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

import ecgclip_jax.signal.synthesis.generate as generate_module
from ecgclip_jax.metrics.score2 import RiskFactors, ten_year_risk
from ecgclip_jax.signal.synthesis import CLINICAL, DEFAULT_WORLD, FINDINGS, HOSPITALS, TARGETS, synthesize_ecgs
from ecgclip_jax.signal.synthesis.clinical import ClinicalFacts, draw_clinical
from ecgclip_jax.signal.synthesis.findings import SEVERITIES
from ecgclip_jax.signal.synthesis.patients import Patient, draw_patient
from ecgclip_jax.signal.synthesis.world import Hospital, WorldSpec
from ecgclip_jax.text.report_writer import write_report

SEED = 9


@pytest.fixture(scope="module")
def group() -> tuple[list[Patient], list[ClinicalFacts]]:
    patients = [draw_patient(DEFAULT_WORLD, HOSPITALS[0], i, SEED) for i in range(1500)]
    return patients, [draw_clinical(DEFAULT_WORLD, HOSPITALS[0], p, SEED) for p in patients]


def column(facts: list[ClinicalFacts], name: str) -> np.ndarray:
    return np.array([f.recorded[name] for f in facts])


def concordance(years: np.ndarray, event: np.ndarray, score: np.ndarray) -> float:
    """Harrell's C over the pairs whose order is known, in plain numpy."""
    pair = (event[:, None] == 1) & (years[:, None] < years[None, :])
    return float(((score[:, None] > score[None, :])[pair]).mean())


def test_nothing_else_of_the_world_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[1], range(3), seed=SEED)
    nothing = ClinicalFacts(dict.fromkeys(CLINICAL, math.nan), 0.0)
    monkeypatch.setattr(generate_module, "draw_clinical", lambda *_: nothing)
    without = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[1], range(3), seed=SEED)
    assert plain.clinical["systolic_mmhg"].tolist() != without.clinical["systolic_mmhg"].tolist()
    for field in dataclasses.fields(plain):
        if field.name in ("clinical", "latent"):
            continue
        np.testing.assert_equal(getattr(plain, field.name), getattr(without, field.name))


@pytest.mark.parametrize(("hospital", "before"), [(0, "3fe7bbb3b7a5ad7d"), (1, "e6cc71b8e2afdf72")])
def test_patients_findings_and_reports_are_those_from_before_there_were_any(hospital: int, before: str) -> None:
    """Hashes taken from the generator of synthetic_ecg 1.0.0, which had no clinical facts."""
    batch = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[hospital], range(40, 52), seed=3)
    digest = hashlib.sha256()
    for i in range(len(batch)):
        measured = {name: float(values[i]) for name, values in batch.reported_measurements.items()}
        found = [FINDINGS[k] for k in np.flatnonzero(batch.reported_findings[i])]
        targets = sorted(name for name, values in batch.targets.items() if values[i])
        report = write_report(found, measured, HOSPITALS[hospital].report_style, int(batch.report_seed[i]))
        row = [batch.record_id[i], float(batch.age_years[i]), batch.sex[i], found, targets, report, batch.device[i]]
        digest.update(json.dumps(row).encode())
    assert digest.hexdigest()[:16] == before


def test_they_are_a_function_of_seed_hospital_and_patient(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    patients, facts = group
    again = draw_clinical(DEFAULT_WORLD, HOSPITALS[0], patients[17], SEED)
    np.testing.assert_equal(again.recorded, facts[17].recorded)
    other = draw_clinical(DEFAULT_WORLD, HOSPITALS[0], patients[17], SEED + 1)
    assert other.recorded != again.recorded


def test_ranges_are_those_of_adults(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    _, facts = group
    expected = {
        "systolic_mmhg": (120, 140, 85, 220),
        "total_cholesterol_mmol_l": (4.6, 5.6, 2.5, 10),
        "hdl_cholesterol_mmol_l": (1.2, 1.6, 0.5, 3.2),
        "height_cm": (165, 177, 140, 205),
        "weight_kg": (70, 90, 38, 190),
        "follow_up_years": (3, 5, 0, 10),
    }
    for name, (low, high, least, most) in expected.items():
        values = column(facts, name)
        assert low < np.nanmean(values) < high, name
        assert least <= np.nanmin(values) <= np.nanmax(values) <= most, name
    for name in ("smoker", "diabetes", "event_observed"):
        assert set(column(facts, name)[~np.isnan(column(facts, name))]) == {0.0, 1.0}


def test_smoking_and_diabetes_are_the_targets_of_that_name(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    patients, facts = group
    for name, target in (("smoker", "smoking"), ("diabetes", "diabetes")):
        truth = np.array([p.targets[TARGETS.index(target)] for p in patients], float)
        recorded = column(facts, name)
        known = ~np.isnan(recorded)
        np.testing.assert_array_equal(recorded[known], truth[known])


def test_the_severities_are_in_them(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    patients, facts = group
    severity = {s: np.array([p.severity[k] for p in patients]) for k, s in enumerate(SEVERITIES)}
    for name, of, sign in (
        ("systolic_mmhg", "pressure_overload", 1),
        ("total_cholesterol_mmol_l", "metabolic_load", 1),
        ("hdl_cholesterol_mmol_l", "metabolic_load", -1),
        ("weight_kg", "metabolic_load", 1),
    ):
        correlation = spearmanr(column(facts, name), severity[of], nan_policy="omit").statistic
        assert 0.15 < sign * correlation < 0.8, name


def test_gaps_differ_between_hospitals_and_are_not_at_random() -> None:
    share = {}
    for hospital in HOSPITALS[:2]:
        patients = [draw_patient(DEFAULT_WORLD, hospital, i, SEED) for i in range(1500)]
        facts = [draw_clinical(DEFAULT_WORLD, hospital, p, SEED) for p in patients]
        missing = np.isnan(column(facts, "total_cholesterol_mmol_l"))
        np.testing.assert_array_equal(missing, np.isnan(column(facts, "hdl_cholesterol_mmol_l")))
        share[hospital.name] = missing.mean()
        load = np.array([p.severity[SEVERITIES.index("metabolic_load")] for p in patients])
        assert load[missing].mean() < load[~missing].mean() - 0.2
    assert share["B"] > 2 * share["A"]


def test_the_oracle_of_the_event_is_good_but_not_perfect(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    patients, facts = group
    years, event = column(facts, "follow_up_years"), column(facts, "event_observed")
    known = ~np.isnan(years)
    assert 0.2 < event[known].mean() < 0.5
    oracle = concordance(years[known], event[known], np.array([f.log_hazard for f in facts])[known])
    assert 0.70 <= oracle <= 0.90
    names = ("smoker", "diabetes", "systolic_mmhg", "total_cholesterol_mmol_l", "hdl_cholesterol_mmol_l")
    age, male = np.array([p.age_years for p in patients]), np.array([float(p.sex == "male") for p in patients])
    risk = ten_year_risk(RiskFactors(age, male, *(column(facts, name) for name in names)), "low")
    known &= ~np.isnan(risk)
    assert 0.6 < concordance(years[known], event[known], risk[known]) < oracle, "a risk score knows a part of it"


def test_times_are_those_of_the_hazard(group: tuple[list[Patient], list[ClinicalFacts]]) -> None:
    """Expected events given everybody's time at risk (their cumulative hazard) against those observed."""
    facts = [f for f in group[1] if not math.isnan(f.recorded["event_observed"])]
    expected = (0.05 * np.exp([f.log_hazard for f in facts]) * column(facts, "follow_up_years")).sum()
    assert column(facts, "event_observed").sum() == pytest.approx(expected, rel=4 / math.sqrt(expected))


def test_in_the_null_world_of_unseen_targets_no_severity_of_the_ecg_tells_them() -> None:
    world, hospital = WorldSpec(targets_affect_waveform=False), HOSPITALS[0]
    patients = [draw_patient(world, hospital, i, SEED) for i in range(1500)]
    facts = [draw_clinical(world, hospital, p, SEED) for p in patients]
    visible = np.array([p.severity for p in patients]).T
    for scores in (np.array([f.log_hazard for f in facts]), column(facts, "systolic_mmhg"), column(facts, "height_cm")):
        known = ~np.isnan(scores)
        assert all(abs(spearmanr(s[known], scores[known]).statistic) < 0.1 for s in visible)
    height = column(facts, "height_cm")
    male = np.array([p.sex == "male" for p in patients])
    assert abs(np.nanmean(height[male]) - np.nanmean(height[~male])) < 2


def test_a_hospital_without_records_records_nothing_but_its_ecgs() -> None:
    hospital: Hospital = HOSPITALS[0].model_copy(update={"clinical_missing": 0.999})
    batch = synthesize_ecgs(DEFAULT_WORLD, hospital, range(4), seed=1)
    unknown = np.mean([np.isnan(values) for values in batch.clinical.values()])
    assert unknown > 0.9
    assert np.isfinite(batch.latent["oracle_event"]).all()
