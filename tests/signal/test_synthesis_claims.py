"""What the synthetic world may be used to prove: targets partly visible, null worlds null, enough positives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgclip_jax.signal.synthesis import (
    DEFAULT_WORLD,
    EXTERNAL_HOSPITALS,
    FINDINGS,
    HOSPITALS,
    TARGET_TABLE,
    TARGETS,
    synthesize_ecgs,
)
from ecgclip_jax.signal.synthesis.findings import FINDING_TABLE, SEVERITIES
from ecgclip_jax.signal.synthesis.patients import Patient, draw_findings, draw_patient, keyed_generator
from ecgclip_jax.signal.synthesis.recording import make_recording
from ecgclip_jax.signal.synthesis.world import Hospital, WorldSpec


def patients(world: WorldSpec, hospital: Hospital, count: int) -> list[Patient]:
    return [draw_patient(world, hospital, i, seed=9) for i in range(count)]


def auroc_of_oracle(group: list[Patient], target: int) -> float:
    return float(roc_auc_score([p.targets[target] for p in group], [p.oracle[target] for p in group]))


def test_liabilities_have_unit_variance_to_spare() -> None:
    for row in (*FINDING_TABLE, *TARGET_TABLE):
        assert set(row.loadings) <= set(SEVERITIES)
        assert sum(v * v for v in row.loadings.values()) < 1


def test_the_oracle_is_good_but_not_perfect() -> None:
    group = patients(DEFAULT_WORLD, HOSPITALS[0], 3500)
    for number, target in enumerate(TARGET_TABLE):
        prevalence = np.mean([p.targets[number] for p in group])
        assert prevalence == pytest.approx(target.prevalence, abs=0.025)
        assert 0.70 <= auroc_of_oracle(group, number) <= 0.90, target.key


def test_targets_without_waveform_effect_are_independent_of_what_shows() -> None:
    world = WorldSpec(targets_affect_waveform=False)
    group = patients(world, HOSPITALS[0], 1800)
    severity = np.array([p.severity for p in group])
    for number, target in enumerate(TARGET_TABLE):
        visible = severity @ np.array([target.loadings.get(s, 0.0) for s in SEVERITIES])
        score = roc_auc_score([p.targets[number] for p in group], visible)
        assert 0.39 < score < 0.61, target.key


def test_every_finding_is_common_enough_in_the_external_hospital() -> None:
    hospital = EXTERNAL_HOSPITALS[0]
    counts = np.zeros(len(FINDINGS))
    group = patients(DEFAULT_WORLD, hospital, 800)
    for patient in group:
        rng = keyed_generator(9, hospital, patient.patient_id, 1)
        found = make_recording(
            DEFAULT_WORLD, patient, draw_findings(patient, hospital, rng), rng, render=False
        ).findings
        counts += [key in found for key in FINDINGS]
    share = dict(zip(FINDINGS, counts / len(group), strict=True))
    common = {"sinus_rhythm"}
    assert all(0.010 <= v <= 0.30 for k, v in share.items() if k not in common), share


def test_chronic_findings_persist_between_recordings() -> None:
    hospital = HOSPITALS[0]
    again = {"left_bundle_branch_block": [], "inferior_stemi": []}
    for patient in patients(DEFAULT_WORLD, hospital, 1500):
        first, second = (
            draw_findings(patient, hospital, keyed_generator(9, hospital, patient.patient_id, stream))
            for stream in (1, 2)
        )
        for key, values in again.items():
            if key in first:
                values.append(key in second)
    assert np.mean(again["left_bundle_branch_block"]) > 0.7
    assert np.mean(again["inferior_stemi"]) < 0.4


def test_reports_of_other_patients_know_nothing_of_this_one() -> None:
    world = WorldSpec(reports_of_other_patients=True)
    batch = synthesize_ecgs(world, HOSPITALS[0], range(25), seed=1)
    plain = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[0], range(25), seed=1)
    np.testing.assert_array_equal(batch.ecg_uv, plain.ecg_uv)
    np.testing.assert_array_equal(batch.findings, plain.findings)
    np.testing.assert_array_equal(plain.findings, plain.reported_findings)
    assert (batch.findings != batch.reported_findings).any(axis=1).mean() > 0.7


def test_a_target_can_be_tied_to_a_device_and_reversed_outside() -> None:
    world = WorldSpec(device_linked_target="hypertension")
    for hospital in (HOSPITALS[0], EXTERNAL_HOSPITALS[0]):
        batch = synthesize_ecgs(world, hospital, range(25), seed=1)
        on_first = np.array([d == hospital.devices[0].name for d in batch.device])
        np.testing.assert_array_equal(on_first, batch.targets["hypertension"] == (hospital.device_link > 0))


def test_targets_and_findings_share_no_key() -> None:
    assert not set(FINDINGS) & set(TARGETS)


def test_null_switch_must_fit() -> None:
    with pytest.raises(ValueError, match="each name once"):
        WorldSpec(hospitals=(HOSPITALS[0], HOSPITALS[0]))
    with pytest.raises(KeyError, match="no hospital"):
        DEFAULT_WORLD.hospital("Z")
