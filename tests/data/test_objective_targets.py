"""What objectives learn beside texts: values and gaps of every record, and refusals before the first step."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.index import SUMMARY_FILE, RunIndex, RunIndexError, build_index, load_index
from ecgclip_jax.data.labels import LabelError
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.data.sources import CLINICAL_COLUMNS, open_cohort
from ecgclip_jax.data.targets import TargetError, saved_measurement_scaling, target_extras, target_facts
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.objectives import ClefSpec, InfoNCESpec, RiskSpec, SimCLRSpec, SupervisedSpec, SurvivalSpec

NAN = float("nan")
DATA = DataSpec(sources=(Source(cohort="tiny"),))
KNOWN = {
    "age_years": 50.0,
    "sex": "male",
    "smoker": 1.0,
    "diabetes": 0.0,
    "systolic_mmhg": 140.0,
    "total_cholesterol_mmol_l": 5.5,
    "hdl_cholesterol_mmol_l": 1.3,
    "height_cm": 175.0,
    "weight_kg": 80.0,
    "follow_up_years": 3.0,
    "event_observed": 1.0,
}


def make_index(folder: Path, *changes: dict[str, object], reads_text: bool = True) -> RunIndex:
    """An index over one record per dict of changes to KNOWN."""
    records = [tiny_record(n, **{**KNOWN, **change}) for n, change in enumerate(changes)]
    write_cohort(folder, {"train": records})
    return build_index(DATA, folder, seed=0, reads_text=reads_text)


def codes(*names: str) -> dict[str, object]:
    return {"label_codes": names, "label_values": (100.0,) * len(names)}


def test_labels_are_concepts_and_a_record_without_codes_is_unknown(tmp_path: Path) -> None:
    index = make_index(
        tmp_path,
        codes("atrial_fibrillation", "lvef_40_or_less"),
        codes("anterior_stemi"),
        codes(),
        codes("sinus_rhythm"),
        codes("atrial_fibrillation") | {"label_vocabulary": "scp"},
    )
    objective = SupervisedSpec(labels=("myocardial_infarction", "atrial_fibrillation"))
    extras = target_extras(objective, index)
    assert set(extras.values) == set(extras.present) == {"labels"}
    assert extras.values["labels"].dtype == np.float32
    np.testing.assert_array_equal(extras.values["labels"], [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(
        extras.present["labels"], [[True] * 2, [True] * 2, [False] * 2, [True] * 2, [False] * 2]
    )


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (SupervisedSpec(labels=("atrial_fibrilation",)), TargetError, "no concept.*near it: atrial_fibrillation"),
        (SupervisedSpec(labels=("zzz",)), TargetError, "no concept.*for example normal_ecg"),
        (SupervisedSpec(labels=("dextrocardia",)), TargetError, r"'dextrocardia': no record has it \(2 records"),
        (SupervisedSpec(labels=("sinus_rhythm",)), TargetError, "'sinus_rhythm': every record has it"),
        (SupervisedSpec(labels=("AFIB",), label_vocabulary="icd"), LabelError, "objective.label_vocabulary is 'icd'"),
        (
            SupervisedSpec(labels=("sinus_rhythm",), label_vocabulary="scp"),
            LabelError,
            "no record has labels in the vo",
        ),
        (
            SupervisedSpec(measurements=("agee_years",)),
            RunIndexError,
            "no numeric field 'agee_years'.*near it: age_years",
        ),
        (SupervisedSpec(measurements=("sex",)), RunIndexError, "no numeric field 'sex'"),
        (SupervisedSpec(measurements=("weight_kg",)), TargetError, "'weight_kg' is 80 in all 2 records"),
        (SupervisedSpec(measurements=("band_low_hz",)), TargetError, "'band_low_hz' is known of none of the 2"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    tmp_path: Path, objective: SupervisedSpec, error: type[Exception], message: str
) -> None:
    index = make_index(tmp_path, codes("sinus_rhythm"), codes("sinus_rhythm", "anterior_stemi"))
    with pytest.raises(error, match=message):
        target_extras(objective, index)


def test_labels_by_rule_come_from_the_report_and_never_from_codes(tmp_path: Path) -> None:
    def report(text: str) -> dict[str, object]:
        return codes("anterior_stemi") | {"report_raw": text, "report_clean": text}

    index = make_index(
        tmp_path, report("Atrial fibrillation. No LBBB."), report("Sinus rhythm."), report(""), reads_text=False
    )
    labels = ("atrial_fibrillation", "sinus_rhythm")
    extras = target_extras(SupervisedSpec(label_vocabulary="report_rules", labels=labels), index)
    assert extras.values["labels"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert extras.present["labels"].tolist() == [[True, True], [True, True], [False, False]]
    for label, message in (("anterior_stemi", "no record has it"), ("nonsense", "no concept of the vocabulary")):
        with pytest.raises(TargetError, match=message):
            target_extras(SupervisedSpec(label_vocabulary="report_rules", labels=(label,)), index)


def test_measurements_are_standardised_and_their_scale_is_remembered(tmp_path: Path) -> None:
    ages = [40.0, 52.0, 61.0, 90.0, NAN]
    changes = [{"age_years": age, "age_censored": age == 90.0, "weight_kg": 60.0 + k} for k, age in enumerate(ages)]
    index = make_index(tmp_path, *changes)
    objective = SupervisedSpec(measurements=("age_years", "weight_kg"))
    extras = target_extras(objective, index)
    values, present = extras.values["measurements"], extras.present["measurements"]
    assert values.shape == present.shape == (5, 2)
    np.testing.assert_array_equal(present[:, 0], [True, True, True, False, False])
    np.testing.assert_allclose(values[:3, 0], (np.array(ages[:3]) - 51.0) / np.std(ages[:3]), rtol=1e-6)
    assert (values[3:, 0] == 0).all()
    index.save(tmp_path / "run", target_facts(objective, index))
    scaling = saved_measurement_scaling(tmp_path / "run")
    assert scaling["age_years"] == {"mean": 51.0, "sd": pytest.approx(np.std(ages[:3]))}
    back = values[:3, 0] * scaling["age_years"]["sd"] + scaling["age_years"]["mean"]
    np.testing.assert_allclose(back, ages[:3], rtol=1e-6)
    assert load_index(tmp_path / "run", DATA, tmp_path, seed=0).fingerprint == index.fingerprint
    index.save(tmp_path / "plain")
    assert saved_measurement_scaling(tmp_path / "plain") == {}


def test_what_a_source_measured_is_learnt_like_any_number(tmp_path: Path) -> None:
    measured: list[tuple[tuple[str, ...], tuple[float, ...]]] = [
        (("qrs_ms", "pr_ms"), (90.0, 160.0)),
        (("pr_ms",), (200.0,)),
        ((), ()),
        (("pr_ms", "qrs_ms"), (180.0, 130.0)),
    ]
    index = make_index(tmp_path, *({"measurement_names": n, "measurement_values": v} for n, v in measured))
    np.testing.assert_array_equal(index.numbers("qrs_ms"), [90.0, NAN, NAN, 130.0])
    extras = target_extras(SupervisedSpec(measurements=("qrs_ms", "pr_ms")), index)
    np.testing.assert_array_equal(
        extras.present["measurements"], [[True, True], [False, True], [False, False], [True, True]]
    )
    np.testing.assert_allclose(extras.values["measurements"][[0, 3], 0], [-1.0, 1.0], rtol=1e-6)
    with pytest.raises(RunIndexError, match=r"no numeric field 'qrs'.*near it: qrs_ms"):
        index.numbers("qrs")


def test_risk_and_how_complete_its_metadata_are(tmp_path: Path) -> None:
    index = make_index(
        tmp_path,
        {},
        {"sex": "female"},
        {"smoker": NAN},
        {"height_cm": NAN, "weight_kg": NAN, "diabetes": NAN},
        {"sex": "unknown", "age_years": NAN},
        {"age_years": 75.0},
        {"age_years": 75.0, "diabetes": NAN},
        {"age_years": 90.0, "age_censored": True},
        {"age_years": 60.0, "age_censored": True},
    )
    extras = target_extras(ClefSpec(), index)
    assert set(extras.values) == {"risk", "risk_completeness"}
    risk, known = extras.values["risk"], extras.present["risk"]
    np.testing.assert_array_equal(known, [True, True, False, True, False, True, False, True, False])
    np.testing.assert_allclose(risk[[0, 1, 3, 5]], [0.059, 0.042, 0.059, 0.186], atol=5e-4)
    assert (risk[~known] == 0).all()
    completeness = [9, 9, 8, 6, 7, 9, 8, 9, 8]
    np.testing.assert_allclose(extras.values["risk_completeness"], np.array(completeness) / 9, rtol=1e-6)
    assert extras.present["risk_completeness"].all()
    elsewhere = target_extras(ClefSpec(risk=RiskSpec(region="very_high", older_from_years=80)), index)
    np.testing.assert_allclose(elsewhere.values["risk"][[0, 1]], [0.140, 0.137], atol=5e-4)
    assert elsewhere.present["risk"][6], "SCORE2 below 80 asks for no diabetes"


def test_risk_known_of_nobody_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    index = make_index(tmp_path, {"smoker": NAN}, {"systolic_mmhg": NAN})
    with pytest.raises(
        TargetError, match=r"of 2 records, .*smoker known of 1.*systolic_mmhg known of 1.*sex known of 2"
    ):
        target_extras(ClefSpec(), index)


def test_follow_up(tmp_path: Path) -> None:
    index = make_index(
        tmp_path, {}, {"event_observed": 0.0, "follow_up_years": 7.5}, {"event_observed": NAN}, {"follow_up_years": NAN}
    )
    extras = target_extras(SurvivalSpec(), index)
    assert set(extras.values) == {"follow_up_years", "event"}
    np.testing.assert_array_equal(extras.values["follow_up_years"], np.array([3.0, 7.5, 0, 0], np.float32))
    np.testing.assert_array_equal(extras.values["event"], [1, 0, 0, 0])
    for present in extras.present.values():
        np.testing.assert_array_equal(present, [True, True, False, False])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"follow_up_years": NAN}, "needs follow-up, but none of the 2 records"),
        ({"event_observed": 0.0}, "none of the 2 records with follow-up has an event"),
        ({"follow_up_years": -1.0}, "follow_up_years is negative"),
    ],
)
def test_follow_up_that_teaches_nothing_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    index = make_index(tmp_path, change, change)
    with pytest.raises(TargetError, match=message):
        target_extras(SurvivalSpec(), index)


@pytest.mark.parametrize("objective", [InfoNCESpec(), SimCLRSpec()])
def test_other_objectives_carry_nothing(tmp_path: Path, objective: InfoNCESpec | SimCLRSpec) -> None:
    extras = target_extras(objective, make_index(tmp_path, {}))
    assert (extras.values, extras.present) == ({}, {})


def test_batches_carry_targets_of_their_rows_beside_the_mains_frequency(tmp_path: Path) -> None:
    changes = [codes("sinus_rhythm") | {"age_years": 40.0 + n, "smoker": [0.0, NAN][n % 2]} for n in range(7)]
    index = make_index(tmp_path, *changes, codes("anterior_stemi"))
    objective = SupervisedSpec(labels=("anterior_stemi", "sinus_rhythm"), measurements=("age_years", "smoker"))
    extras = target_extras(objective, index)
    np.testing.assert_array_equal(extras.present["measurements"][:4, 1], [True, False, True, False])
    stream = TrainPipeline(index, None, extras, max_tokens=0, batch_global=4).batches()
    for batch in itertools.islice(stream, 4):
        assert set(batch.extras) == set(batch.extras_present) == {"mains_hz", "labels", "measurements"}
        assert batch.extras["labels"].shape == batch.extras_present["labels"].shape == (4, 2)
        np.testing.assert_array_equal(batch.extras["labels"], extras.values["labels"][batch.record_row])
        np.testing.assert_array_equal(batch.extras["measurements"], extras.values["measurements"][batch.record_row])
        np.testing.assert_array_equal(batch.extras["mains_hz"], np.full(4, 50, np.float32))
    stream.close()


def test_objectives_without_text_keep_ecgs_without_report(tmp_path: Path) -> None:
    index = make_index(tmp_path, {"report": ""}, {}, {"report": ""}, {}, reads_text=False)
    assert len(index) == 4
    assert index.left_out == ({},)
    assert len(build_index(DATA, tmp_path, seed=0)) == 2
    index.save(tmp_path / "run")
    assert len(load_index(tmp_path / "run", DATA, tmp_path, seed=0)) == 4
    (batch,) = itertools.islice(TrainPipeline(index, None, max_tokens=0, batch_global=4).batches(), 1)
    assert batch.text_valid.shape == (4, 1)
    np.testing.assert_array_equal(batch.text_valid[np.argsort(batch.record_row), 0], [False, True, False, True])


def test_a_cohort_of_the_older_schema_knows_no_clinical_facts(tmp_path: Path) -> None:
    index = make_index(tmp_path, {}, {})
    fingerprint = index.cohorts[0].fingerprint
    path = tmp_path / "tiny" / "1.0.0" / "records-train.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(CLINICAL_COLUMNS)), path)
    older = build_index(DATA, tmp_path, seed=0)
    assert np.isnan(older.numbers("smoker")).all()
    assert older.cohorts[0].fingerprint != fingerprint
    for objective in (ClefSpec(), SurvivalSpec()):
        with pytest.raises(TargetError, match=r"prepare again: tiny/1\.0\.0/train"):
            target_extras(objective, older)


def test_a_changed_risk_factor_changes_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(folder: str, **change: object) -> str:
        make_index(tmp_path / folder, change)
        return open_cohort(tmp_path / folder, Source(cohort="tiny")).fingerprint

    assert fingerprint("a") == fingerprint("b")
    assert len({fingerprint("c"), fingerprint("d", smoker=0.0), fingerprint("e", follow_up_years=3.5)}) == 3


def test_the_summary_keeps_no_count_of_patients_with_a_label(tmp_path: Path) -> None:
    index = make_index(tmp_path, codes("sinus_rhythm"), codes("anterior_stemi") | {"age_years": 70.0})
    index.save(
        tmp_path / "run", target_facts(SupervisedSpec(labels=("anterior_stemi",), measurements=("age_years",)), index)
    )
    summary = json.loads((tmp_path / "run" / SUMMARY_FILE).read_text())
    assert set(summary) - set(index.summary()) == {"measurement_scaling"}
