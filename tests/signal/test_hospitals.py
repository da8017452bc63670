"""The ten hospitals: a frozen world, the same patients in any chunk, null worlds that are null, weights that weigh."""

from __future__ import annotations

import hashlib
import math
from importlib import resources

import numpy as np
import pytest

from ecgclip_jax.signal.hospitals import (
    HospitalWorld,
    hospital_world_fingerprint,
    load_world,
    sample_patients,
    synthesize_hospital,
)
from ecgclip_jax.signal.hospitals.echo import nearest_examination
from ecgclip_jax.signal.hospitals.population import BLOCK, Population, draw_block
from ecgclip_jax.signal.hospitals.sampling import condition_shares, conditions
from ecgclip_jax.signal.synthesis import CLINICAL, FINDINGS
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV

WORLD = load_world()
INTERNAL = WORLD.hospitals[0]
PARAMETERS_SHA = "da02bd65378feb7e1dd826f18f9faff70427484dd8d938d7781af7402cedbfbe"
"""Of world.toml, world `ten-hospitals-1`. The world is frozen: other parameters are another world with another name."""
DRAWN_SHA = "acf4e30713ffa6d9916ae782a85b86319c5ead8b345adb4b66430c7eb86312fc"
"""Of what is drawn for eight patients of every hospital, numbers rounded."""
LEAD_II_SD_UV = [239.3, 615.4, 820.5, 501.1, 563.6, 332.1, 356.5, 771.8, 473.4, 508.9]
"""Of the first recording of patient 0 of every hospital."""


def blocks(world: HospitalWorld, n: int, hospital: int = 0) -> list[Population]:
    return [draw_block(world, world.hospitals[hospital], b, 11) for b in range(n)]


def drawn_sha() -> str:
    digest = hashlib.sha256()
    for hospital in WORLD.hospitals:
        patients = draw_block(WORLD, hospital, 0, WORLD.seed).take(np.arange(8))
        numbers = [patients.age_years, patients.n_recordings, patients.day, patients.candidates, patients.device]
        numbers += [np.round(patients.hidden, 3), np.round(patients.shape, 2), patients.coded_stays]
        numbers += [*patients.echo.value.values(), *patients.conditions.values()]
        numbers += [np.nan_to_num(patients.clinical[name], nan=-1) for name in CLINICAL]
        for values in numbers:
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
    return digest.hexdigest()


def lead_ii_sd_uv() -> list[float]:
    firsts = [next(synthesize_hospital(WORLD, h, [0], WORLD.seed)).records[0] for h in WORLD.hospitals]
    return [float(np.std(r.ecg_uv[:, LEADS_12.index("II")].astype(float))) for r in firsts]


def test_the_world_is_frozen() -> None:
    text = (resources.files("ecgclip_jax.signal.hospitals") / "world.toml").read_bytes()
    assert hashlib.sha256(text).hexdigest() == PARAMETERS_SHA
    assert drawn_sha() == DRAWN_SHA
    np.testing.assert_allclose(lead_ii_sd_uv(), LEAD_II_SD_UV, atol=1.0)


def test_ten_hospitals_differ_in_everything() -> None:
    assert [h.role for h in WORLD.hospitals].count("internal") == 1
    assert len(WORLD.hospitals) == 10
    devices = [d.name for h in WORLD.hospitals for d in h.devices]
    assert len(set(devices)) == len(devices)
    for field in ("wander_uv", "mains_uv", "age_mean_years", "healthy_share", "missing_lead_probability"):
        assert len({getattr(h, field) for h in WORLD.hospitals}) >= 5, field
    assert {h.mains_hz for h in WORLD.hospitals} == {50, 60}
    assert len({h.report_style for h in WORLD.hospitals}) == 6


def test_a_recording_is_the_same_in_any_chunk() -> None:
    whole = {r.record_id: r for b in synthesize_hospital(WORLD, INTERNAL, range(6), 3) for r in b.records}
    parts = [
        r for ids in ([4], [1, 300], [5, 0]) for b in synthesize_hospital(WORLD, INTERNAL, ids, 3) for r in b.records
    ]
    again = [r for r in parts if r.record_id in whole]
    assert len(again) > 3
    for record in again:
        np.testing.assert_array_equal(record.ecg_uv, whole[record.record_id].ecg_uv)
        assert record.findings == whole[record.record_id].findings
        assert record.report_seed == whole[record.record_id].report_seed


def test_lead_laws_hold_and_derived_findings_are_there() -> None:
    (batch,) = synthesize_hospital(WORLD, INTERNAL, range(25), 3)
    for record in batch.records:
        if not record.lead_present.all():
            continue
        one, two, three = (record.ecg_uv[:, i].astype(float) for i in range(3))
        assert np.abs(one + three - two).max() <= 2 * record.device.resolution_uv + 2
        assert record.ecg_uv.min() > MISSING_UV
        assert set(record.findings) <= set(FINDINGS)
    assert any("normal_ecg" in r.findings for r in batch.records)


def test_a_patient_is_followed_over_years() -> None:
    for patients in blocks(WORLD, 4):
        made = np.arange(patients.day.shape[1]) < patients.n_recordings[:, None]
        assert (np.diff(patients.day, axis=1) > 0).all()
        assert (np.diff(patients.age_years, axis=1) >= 0).all()
        left = patients.clinical["follow_up_years"][made]
        assert (left[~np.isnan(left)] > 0).all(), "nobody is recorded after his event or the study's end"
        worse = patients.severity[:, -1, 0] - patients.severity[:, 0, 0]
        assert (worse > 0).all()


def test_gaps_in_the_records_are_not_at_random() -> None:
    missing = {h.name: [] for h in WORLD.hospitals}
    for k, hospital in enumerate(WORLD.hospitals):
        for patients in blocks(WORLD, 3, k):
            missing[hospital.name].append(np.isnan(patients.clinical["total_cholesterol_mmol_l"][:, 0]).mean())
    assert np.mean(missing["fir"]) > np.mean(missing["alder"]) + 0.15
    patients = blocks(WORLD, 12)
    done = np.concatenate([p.echo.done[:, 0] for p in patients])
    sick = np.concatenate([p.hidden[:, 0, 0] for p in patients])
    assert done[sick > 1].mean() > done[sick < -1].mean() + 0.1


def test_echoes_belong_to_the_nearest_examination() -> None:
    for patients in blocks(WORLD, 2):
        which, gap = nearest_examination(patients.echo, patients.day)
        for p in range(0, BLOCK, 37):
            for m in range(patients.day.shape[1]):
                gaps = {v: patients.echo.day[p, v] - patients.day[p, m] for v in (0, 1) if patients.echo.done[p, v]}
                if not gaps:
                    assert math.isnan(gap[p, m])
                else:
                    assert abs(gap[p, m]) == min(map(abs, gaps.values()))
                    assert gaps[which[p, m]] == gap[p, m]


def test_targets_without_waveform_effect_are_independent_of_what_shows() -> None:
    null = load_world("unseen_targets")
    assert hospital_world_fingerprint(null) != hospital_world_fingerprint(WORLD)
    for world, related in ((WORLD, True), (null, False)):
        patients = blocks(world, 20)
        shown = np.concatenate([p.severity[:, 0, 0] for p in patients])
        ejection = np.concatenate([p.echo.value["lvef_percent"][:, 0] for p in patients])
        amyloid = np.concatenate([p.conditions["cardiac_amyloidosis"] for p in patients])
        infiltration = np.concatenate(
            [p.severity[:, 0, list(world.severities).index("infiltration")] for p in patients]
        )
        assert (np.corrcoef(shown, ejection)[0, 1] < -0.4) == related
        assert (infiltration[amyloid].mean() > 0.5) == related
        if not related:
            assert abs(np.corrcoef(shown, ejection)[0, 1]) < 0.05
            assert abs(infiltration[amyloid].mean()) < 0.5


def test_a_disease_is_tied_to_a_device_inside_and_the_other_way_outside() -> None:
    tied = load_world("device_linked")
    for k in (0, 3):
        patients = draw_block(tied, tied.hospitals[k], 0, 11)
        reduced = patients.echo.value["lvef_percent"][:, 0] <= 45
        on_first = patients.device[:, 0] == 0
        np.testing.assert_array_equal(on_first, reduced == (tied.hospitals[k].role == "internal"))
        free = draw_block(WORLD, WORLD.hospitals[k], 0, 11)
        np.testing.assert_array_equal(free.candidates, patients.candidates)


def test_weights_give_back_the_source() -> None:
    hospital = WORLD.hospital("birch")
    sample = sample_patients(WORLD, hospital, 2500, 5, enriched=True)
    assert abs(sample.weight.sum() / sample.candidates - 1) < 0.1
    source = [draw_block(WORLD, hospital, b, 5) for b in range(sample.candidates // BLOCK)]
    rare = np.concatenate([p.conditions["hypertrophic_cardiomyopathy"] for p in source])
    common = np.concatenate([p.echo.value["lvef_percent"][:, 0] <= 45 for p in source])
    at = {int(i): k for k, i in enumerate(np.concatenate([p.patient_id for p in source]))}
    rows = [at[int(i)] for i in sample.patient_id if int(i) in at]
    weight = np.array([w for i, w in zip(sample.patient_id, sample.weight, strict=True) if int(i) in at])
    assert rare[rows].mean() > 2.5 * rare.mean(), "cases are taken more often"
    assert np.average(rare[rows], weights=weight) == pytest.approx(rare.mean(), abs=0.006)
    assert np.average(common[rows], weights=weight) == pytest.approx(common.mean(), abs=0.04)
    assert sample.weight.min() >= 1
    assert sample.weight.max() <= 1 / WORLD.enrichment.least + 1e-9


def test_a_larger_sample_holds_the_smaller_one() -> None:
    for enriched in (False, True):
        small, large = (sample_patients(WORLD, INTERNAL, n, 5, enriched=enriched) for n in (150, 700))
        assert set(small.patient_id.tolist()) <= set(large.patient_id.tolist())
        assert abs(int(large.n_recordings.sum()) - 700) < 120
        assert enriched or (large.weight == 1).all()


def test_cases_are_counted_once_for_the_whole_world() -> None:
    shares = condition_shares(WORLD)
    assert shares["diagnosis_ebstein_anomaly"] == pytest.approx(WORLD.rare["ebstein_anomaly"].prevalence, abs=0.003)
    assert set(shares) == set(conditions(WORLD, blocks(WORLD, 1)[0]))


def test_chest_cables_can_be_exchanged() -> None:
    never = INTERNAL.replace({"chest_swap_probability": 0.0})
    always = INTERNAL.replace({"chest_swap_probability": 1.0})
    (a,), (b,) = (tuple(synthesize_hospital(WORLD, h, range(12), 3)) for h in (never, always))
    exchanged = 0
    for plain, other in zip(a.records, b.records, strict=True):
        if plain.lead_present.all() and plain.ecg_uv.any(axis=0).all():
            x, y = plain.ecg_uv[:, 6:].astype(float), other.ecg_uv[:, 6:].astype(float)
            alike = [np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(6)]
            exchanged += min(alike) < 0.95
    assert exchanged >= len(a.records) // 3


def test_a_world_that_contradicts_itself_is_refused() -> None:
    tree = WORLD.model_dump()
    tree["rare"]["dextrocardia"]["loadings"] = {"situs": 1.2}
    with pytest.raises(ValueError, match="squares sum to less than 1"):
        HospitalWorld.model_validate(tree)
    with pytest.raises(KeyError, match="no hospital 'zelkova'"):
        WORLD.hospital("zelkova")
