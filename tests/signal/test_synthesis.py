"""The synthetic world keeps its promises: same bytes in any chunking, lead laws, labels true of the tracing."""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.signal.synthesis import (
    DEFAULT_WORLD,
    EXTERNAL_HOSPITALS,
    FINDINGS,
    HOSPITALS,
    TARGETS,
    TRAINING_HOSPITALS,
    SyntheticBatch,
    one_ecg_per_finding,
    synthesize_ecgs,
    world_fingerprint,
)
from ecgclip_jax.signal.synthesis.compatibility import EXCLUSIVE, HIDES, RHYTHMS
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV

PATIENTS = 60


@pytest.fixture(scope="module")
def cohort() -> SyntheticBatch:
    return synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[0], range(PATIENTS), seed=5)


@pytest.fixture(scope="module")
def sheet() -> SyntheticBatch:
    return one_ecg_per_finding(seed=0)


def shown(batch: SyntheticBatch, finding: str) -> np.ndarray:
    return np.asarray(batch.findings[:, FINDINGS.index(finding)])


def lead(batch: SyntheticBatch, row: int, name: str) -> np.ndarray:
    return batch.ecg_uv[row, :, LEADS_12.index(name)].astype(float)


def test_a_patient_is_the_same_in_any_chunk(cohort: SyntheticBatch) -> None:
    chunks = [synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[0], ids, seed=5) for ids in ([17], range(3, 9), [41, 2])]
    for chunk in chunks:
        for i, record_id in enumerate(chunk.record_id):
            j = cohort.record_id.index(record_id)
            np.testing.assert_array_equal(chunk.ecg_uv[i], cohort.ecg_uv[j])
            np.testing.assert_array_equal(chunk.findings[i], cohort.findings[j])
            assert chunk.report_seed[i] == cohort.report_seed[j]
            assert chunk.age_years[i] == cohort.age_years[j]
            for name, values in chunk.measurements.items():
                np.testing.assert_array_equal(values[i], cohort.measurements[name][j])
            for name in TARGETS:
                assert chunk.targets[name][i] == cohort.targets[name][j]


def test_seed_and_hospital_change_the_patient(cohort: SyntheticBatch) -> None:
    other_seed = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[0], [0], seed=6)
    other_hospital = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[1], [0], seed=5)
    assert not np.array_equal(other_seed.ecg_uv[0], cohort.ecg_uv[0])
    assert not np.array_equal(other_hospital.ecg_uv[0], cohort.ecg_uv[0])


def test_no_patients_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one patient"):
        synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[0], [])


def test_lead_laws_hold_but_for_quantisation(cohort: SyntheticBatch) -> None:
    x = cohort.ecg_uv.astype(float)
    limits = 2.0 * cohort.resolution_uv[:, None] + 2.0
    one, two, three, avr, avl, avf = (x[:, :, i] for i in range(6))
    for residual in (one + three - two, avr + (one + two) / 2, avl - one + two / 2, avf - two + one / 2):
        assert (np.abs(residual) <= limits).all()


def test_stored_values_are_steps_of_the_device(cohort: SyntheticBatch) -> None:
    for row, step in enumerate(cohort.resolution_uv.tolist()):
        present = cohort.ecg_uv[row][:, cohort.lead_present[row]]
        assert np.abs(present).max() < 32767
        np.testing.assert_allclose(present / step, np.rint(present / step), atol=0.5 / step + 1e-6)


def test_missing_leads_are_wholly_missing() -> None:
    hospital = HOSPITALS[2].model_copy(update={"missing_lead_probability": 0.5, "flat_lead_probability": 0.5})
    batch = synthesize_ecgs(DEFAULT_WORLD, hospital, range(20))
    absent = batch.ecg_uv == MISSING_UV
    np.testing.assert_array_equal(absent.all(axis=1), absent.any(axis=1))
    np.testing.assert_array_equal(absent.any(axis=1), ~batch.lead_present)
    flat = (batch.ecg_uv == 0).all(axis=1)
    assert (absent.any(axis=1) | flat).sum(axis=1).tolist() == [1] * len(batch)
    assert absent.any()
    assert flat.any()


def test_findings_are_compatible(cohort: SyntheticBatch) -> None:
    for row in cohort.findings:
        present = {key for key, value in zip(FINDINGS, row, strict=True) if value}
        # Axis labels are read from the tracing and may stand beside their cause.
        drawn = present - {"left_axis_deviation", "right_axis_deviation"}
        assert all(len(drawn & set(group)) <= 1 for group in EXCLUSIVE)
        assert all(drawn.isdisjoint(HIDES.get(f, frozenset())) for f in drawn if f in RHYTHMS)
        assert ("normal_ecg" in present) == (present == {"normal_ecg", "sinus_rhythm"})


def test_every_finding_has_its_page(sheet: SyntheticBatch) -> None:
    assert len(sheet) == len(FINDINGS)
    assert np.diag(sheet.findings).all()


def test_labels_agree_with_measurements() -> None:
    batch = synthesize_ecgs(DEFAULT_WORLD, HOSPITALS[1], range(110), seed=2)
    m = batch.measurements
    no_ectopy = ~(
        shown(batch, "premature_atrial_complexes")
        | shown(batch, "premature_ventricular_complexes")
        | shown(batch, "ventricular_bigeminy")
    )
    assert (m["heart_rate_bpm"][shown(batch, "sinus_bradycardia") & no_ectopy] < 61).all()
    assert (m["heart_rate_bpm"][shown(batch, "sinus_tachycardia") & no_ectopy] > 99).all()
    assert (m["pr_ms"][shown(batch, "first_degree_av_block")] > 200).all()
    assert (m["pr_ms"][shown(batch, "ventricular_preexcitation")] < 120).all()
    assert (m["pr_ms"][shown(batch, "sinus_rhythm") & ~shown(batch, "first_degree_av_block")] <= 200).all()
    assert (m["qrs_ms"][shown(batch, "left_bundle_branch_block")] >= 120).all()
    assert (m["qtc_ms"][shown(batch, "long_qt")] > 480).all()
    assert (m["qtc_ms"][shown(batch, "short_qt")] < 345).all()
    assert np.isnan(m["pr_ms"][shown(batch, "atrial_fibrillation")]).all()


def test_low_voltage_and_hypertrophy_are_true_of_the_tracing(sheet: SyntheticBatch) -> None:
    low, high = FINDINGS.index("low_qrs_voltage"), FINDINGS.index("left_ventricular_hypertrophy")
    assert np.ptp(sheet.ecg_uv[low, :, :6], axis=0).max() < 560  # 0.5 mV, wander and noise beside it
    sokolow_uv = -lead(sheet, high, "V1").min() + lead(sheet, high, "V5").max()
    assert sokolow_uv > 3500


def test_territories_and_reciprocal_change(sheet: SyntheticBatch) -> None:
    """ST level 60-100 ms after the end of QRS against the PR segment, median over beats found in lead II's P-QRS-T."""
    for finding, up, down in (
        ("anterior_stemi", ("V2", "V3", "V4"), ("III",)),
        ("inferior_stemi", ("II", "III", "aVF"), ("aVL",)),
        ("lateral_stemi", ("I", "aVL", "V5"), ("III",)),
        ("posterior_infarction", (), ("V1", "V2", "V3")),
        ("st_depression", ("aVR",), ("II", "V4", "V5")),
        ("pericarditis", ("I", "II", "V4", "V5"), ("aVR",)),
    ):
        row = FINDINGS.index(finding)
        onset = _qrs_onsets(sheet, row)
        for name in (*up, *down):
            x = lead(sheet, row, name)
            level = np.median([x[o + 75 : o + 95].mean() - x[o - 10 : o].mean() for o in onset])
            assert level > 60 if name in up else level < -60, (finding, name, level)


def _qrs_onsets(sheet: SyntheticBatch, row: int) -> list[int]:
    """By the steepest rise of the spatial signal, 40 ms before its peak."""
    speed = np.abs(np.diff(sheet.ecg_uv[row, :, [0, 1, 7, 10]].astype(float), axis=1)).sum(axis=0)
    peaks = []
    for sample in np.argsort(-speed):
        if speed[sample] < 0.5 * speed.max():
            break
        if all(abs(sample - p) > 200 for p in peaks):
            peaks.append(int(sample))
    return [p - 22 for p in sorted(peaks) if 60 < p < 4800]


def test_bundle_branch_blocks_in_v1_and_v6(sheet: SyntheticBatch) -> None:
    right, left = FINDINGS.index("right_bundle_branch_block"), FINDINGS.index("left_bundle_branch_block")
    assert lead(sheet, right, "V1").max() > -lead(sheet, right, "V1").min() * 0.8
    assert lead(sheet, right, "V6").min() < -250
    assert -lead(sheet, left, "V1").min() > 2 * lead(sheet, left, "V1").max()
    assert lead(sheet, left, "V6").max() > 600


def test_dextrocardia_and_its_look_alike(sheet: SyntheticBatch) -> None:
    heart, cables = FINDINGS.index("dextrocardia"), FINDINGS.index("arm_lead_reversal")
    for row in (heart, cables):
        assert -lead(sheet, row, "I").min() > lead(sheet, row, "I").max()
    assert lead(sheet, heart, "V6").max() < lead(sheet, heart, "V1").max()
    assert lead(sheet, cables, "V5").max() > 3 * lead(sheet, cables, "V1").max()


def test_r_progression_of_a_normal_ecg(sheet: SyntheticBatch) -> None:
    r = [lead(sheet, FINDINGS.index("normal_ecg"), name).max() for name in ("V1", "V2", "V3", "V4")]
    assert r == sorted(r)


def test_hospitals_differ_and_one_is_external() -> None:
    assert {h.mains_hz for h in HOSPITALS} == {50, 60}
    assert len(TRAINING_HOSPITALS) == 2
    assert len(EXTERNAL_HOSPITALS) == 1
    assert len({h.report_style for h in HOSPITALS}) == 3
    devices = [{d.name for d in h.devices} for h in HOSPITALS]
    assert not (devices[0] & devices[1])
    assert not (devices[0] & devices[2])
    assert not (devices[1] & devices[2])


def test_the_fingerprint_follows_the_parameters() -> None:
    assert world_fingerprint() == world_fingerprint(DEFAULT_WORLD)
    assert world_fingerprint(DEFAULT_WORLD.replace({"severity_effect": 0.5})) != world_fingerprint()
