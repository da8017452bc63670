"""Truth of tasks on small tables written by hand: what is positive, negative and unknown, and whose ECG counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ecgclip_jax.data.sources import CohortSplit, WaveformReader
from ecgclip_jax.evaluation.index_ecg import EchoWindow, index_ecg
from ecgclip_jax.evaluation.task_labels import TaskLabels, task_labels, task_numbers, task_survival
from ecgclip_jax.evaluation.tasks import EvaluationError
from tfds_builders.common.schema import arrow_schema

EMPTY: dict[str, Any] = {"string": "", "int32": 0, "float": float("nan"), "bool": False}


def table(vocabulary: str, rows: list[Mapping[str, Any]]) -> pa.Table:
    """Rows with what is given; `numbers` are measurements, each row a patient of his own unless it says whose it is."""
    made = []
    for k, row in enumerate(rows):
        full: dict[str, Any] = {
            f.name: [] if pa.types.is_list(f.type) else EMPTY.get(str(f.type)) for f in arrow_schema()
        }
        full |= {"record_id": str(k), "patient_id": str(k), "patient_id_known": True, "label_vocabulary": vocabulary}
        full |= {"age_years": 60.0, "sex": "female", "lead_present": [True] * 12}
        full |= {key: value for key, value in row.items() if key not in ("codes", "numbers")}
        full["label_codes"] = list(row.get("codes", ()))
        full["label_values"] = [100.0] * len(full["label_codes"])
        full["measurement_names"] = list(row.get("numbers", {}))
        full["measurement_values"] = list(row.get("numbers", {}).values())
        made.append(full)
    return pa.Table.from_pylist(made, schema=arrow_schema())


def split_of(cohort: str, vocabulary: str, *rows: Mapping[str, Any]) -> CohortSplit:
    folder = Path("nowhere")
    return CohortSplit(
        cohort, "1", "test", folder, "open", "", table(vocabulary, list(rows)), WaveformReader(folder, "t")
    )


def says(labels: TaskLabels, task: str) -> str:
    """One character per record: + positive, - negative, ? unknown or excluded."""
    column = labels.tasks.index(task)
    pairs = zip(labels.positive[:, column], labels.known[:, column], strict=True)
    return "".join("?" if not known else "+" if positive else "-" for positive, known in pairs)


def test_ptb_xl_codes() -> None:
    split = split_of(
        "ptb_xl",
        "scp",
        {"codes": ["CLBBB", "SR"]},
        {"codes": ["NORM", "SR"]},
        {},
        {"codes": ["LPR"]},
        {"codes": ["2AVB", "PACE"]},
        {"codes": ["1AVB"], "age_years": 12.0},
        {"codes": ["AMI"]},
    )
    labels = task_labels(split)
    assert says(labels, "left_bundle_branch_block") == "+-?-??-"
    assert says(labels, "normal_ecg") == "-+?--?-"
    assert says(labels, "first_degree_av_block") == "--?" + "?" + "??" + "-"  # LPR is wider; paced; a child
    assert says(labels, "paced_rhythm") == "--?-+?-"
    assert labels.n_excluded["left_bundle_branch_block"] == {"age_under_18": 1, "paced_rhythm": 1}
    assert "anterior_stemi" in labels.unavailable
    assert "no labels of the group echo" in labels.unavailable["aortic_stenosis"]
    assert labels.strata == {("real_here", "report"): labels.tasks}
    assert (labels.weight == 1).all()


def test_a_wider_statement_says_nothing_about_the_narrower() -> None:
    split = split_of(
        "challenge2021_georgia",
        "snomed",
        {"codes": ["6374002"], "site": "georgia"},  # a bundle branch block of no side
        {"codes": ["6374002", "59118001"], "site": "georgia"},  # … and the right one
        {"codes": ["195042002"], "site": "georgia"},  # second degree, no type
        {"codes": ["164889003"], "site": "georgia"},
    )
    labels = task_labels(split)
    assert says(labels, "right_bundle_branch_block") == "?+--"
    assert says(labels, "left_bundle_branch_block") == "??--"
    assert says(labels, "second_degree_av_block_mobitz_1")[2] == "?"
    assert says(labels, "atrial_fibrillation") == "---+"


def test_a_code_that_a_database_never_uses_is_unknown_there() -> None:
    rows = [{"codes": ["426783006"], "site": site} for site in ("ptb-xl", "cpsc_2018", "ningbo")]
    labels = task_labels(split_of("challenge2021", "snomed", *rows))
    assert says(labels, "atrial_fibrillation") == "--?"  # Ningbo has no fibrillation, only flutter
    assert says(labels, "atrial_flutter") == "-?-"
    assert says(labels, "left_ventricular_hypertrophy") == "-?-"
    native = task_labels(split_of("cpsc2018", "cpsc2018", {"codes": ["5"]}, {"codes": ["9"]}))
    assert says(native, "right_bundle_branch_block") == "+-"
    assert "long_qt" in native.unavailable
    challenge = task_labels(split_of("cpsc2018", "snomed", {"codes": ["59118001"]}))
    assert says(challenge, "long_qt") == "?"


def test_sph_states_acute_infarctions_by_one_code() -> None:
    split = split_of(
        "sph", "aha", {"codes": ["160+330"]}, {"codes": ["160"]}, {"codes": ["161+330"]}, {"codes": ["22"]}
    )
    labels = task_labels(split)
    assert says(labels, "anterior_stemi") == "+?--"
    assert says(labels, "old_anterior_infarction") == "-?--"
    assert labels.strata == {("real_here", "human_reread"): labels.tasks}


def test_echo_flags_and_thresholds() -> None:
    flags = split_of(
        "echonext",
        "echonext",
        {"codes": ["lvef_lte_45_flag", "shd_moderate_or_greater_flag"], "numbers": {"lvef_percent": 34.0}},
        {"codes": ["no_flag"], "numbers": {"lvef_percent": 48.0}},
        {"numbers": {"lvef_percent": 60.0}},
    )
    labels = task_labels(flags)
    assert says(labels, "reduced_ejection_fraction") == "+-?"
    assert says(labels, "severely_reduced_ejection_fraction") == "+--"
    assert says(labels, "ejection_fraction_below_50") == "++-"
    assert labels.groups["reduced_ejection_fraction"].availability == "obtainable"
    assert "mitral_stenosis" in labels.unavailable
    np.testing.assert_array_equal(task_numbers(flags, "ejection_fraction"), [34, 48, 60])
    walls = split_of(
        "mimic_iv_ecg_echo",
        "mimic_iv_echo",
        {"numbers": {"ivs_thickness_cm": 1.3, "inferolateral_thickness_cm": 1.0}},
        {"numbers": {"inferolateral_thickness_cm": 1.1}},
        {"numbers": {"lvef_percent": 40.0}, "codes": ["lvef_lte_45_flag"]},
    )
    labels = task_labels(walls)
    assert says(labels, "increased_wall_thickness") == "+-?", "1.3 must survive its storage as float32"
    assert says(labels, "reduced_ejection_fraction") == "??+"
    assert says(labels, "pericardial_effusion") == "??-"


def test_thresholds_of_men_and_women_and_a_composite() -> None:
    split = split_of(
        "synthetic_hospitals",
        "synthetic_hospitals",
        {"numbers": {"lv_mass_index_g_m2": 100.0, "lvef_percent": 60.0}},
        {"numbers": {"lv_mass_index_g_m2": 100.0, "lvef_percent": 40.0}, "sex": "male"},
        {"numbers": {"lv_mass_index_g_m2": 100.0}, "sex": "unknown"},
        {"numbers": {}},
    )
    labels = task_labels(split, ["increased_ventricular_mass", "structural_heart_disease"])
    assert says(labels, "increased_ventricular_mass") == "+-??"
    assert says(labels, "structural_heart_disease") == "?+??", "no finding is known to be absent unless all are"


def test_rare_diseases_are_negative_only_with_a_coded_stay() -> None:
    split = split_of(
        "synthetic_hospitals_unseen_targets",
        "synthetic_hospitals",
        {"codes": ["sinus_rhythm", "diagnosis_ebstein_anomaly"], "numbers": {"icd_coded_stays": 2.0}},
        {"codes": ["sinus_rhythm"], "numbers": {"icd_coded_stays": 1.0, "sampling_weight": 10.0}},
        {"codes": ["sinus_rhythm"], "numbers": {"icd_coded_stays": 0.0}},
        {"codes": ["diagnosis_heart_transplant"], "numbers": {"icd_coded_stays": 1.0}},
        {"codes": ["dextrocardia"], "numbers": {"icd_coded_stays": 1.0}},
    )
    labels = task_labels(split)
    assert says(labels, "ebstein_anomaly") == "+-??-"
    assert says(labels, "dextrocardia") == "--??-", "the tracing's finding is not the patient's diagnosis"
    assert labels.n_excluded["ebstein_anomaly"]["heart_transplant"] == 1
    np.testing.assert_array_equal(labels.weight[1], 10.0)
    icd = task_labels(split_of("mimic_iv_ecg", "icd10", {"codes": ["Q22.5"]}, {"codes": ["I10"]}, {}))
    assert says(icd, "ebstein_anomaly") == "+-?"


def echoed(patient: str, day: float, gap: float | None) -> dict[str, Any]:
    gaps = {} if gap is None else {"echo_gap_days": gap}
    return {"patient_id": patient, "numbers": {"days_since_first_ecg": day, "lvef_percent": 50.0, **gaps}}


def test_the_index_ecg() -> None:
    rows = [
        echoed("a", 40.0, -12.0),
        echoed("a", 0.0, 28.0),
        echoed("a", 20.0, 8.0),
        echoed("b", 0.0, None),
        echoed("b", 9.0, 200.0),
        echoed("c", 0.0, 0.0) | {"window_index": 1},
        {"numbers": {"days_since_first_ecg": 3.0}, "patient_id_known": False},
    ]
    split = split_of("synthetic_hospitals", "synthetic_hospitals", *rows)
    assert np.flatnonzero(index_ecg(split, "one_per_patient", EchoWindow())).tolist() == [1, 3, 6]
    assert np.flatnonzero(index_ecg(split, "before_echo", EchoWindow())).tolist() == [2]
    assert np.flatnonzero(index_ecg(split, "before_echo", EchoWindow(1.0))).tolist() == []
    assert np.flatnonzero(index_ecg(split, "before_echo", EchoWindow(365.0))).tolist() == [2, 4]
    assert np.flatnonzero(index_ecg(split, "before_echo", EchoWindow(30.0, "ecg_after_echo"))).tolist() == [0]
    labels = task_labels(split, ["ejection_fraction_below_50", "atrial_fibrillation"])
    assert np.flatnonzero(labels.index[:, 0]).tolist() == [2]
    assert np.flatnonzero(labels.index[:, 1]).tolist() == [1, 3, 6]
    assert labels.scored[:, 0].sum() == 1
    paired = split_of("echonext", "echonext", {"patient_id": "a"}, {"patient_id": "a"}, {"patient_id": "b"})
    assert np.flatnonzero(index_ecg(paired, "before_echo", EchoWindow())).tolist() == [0, 2]


def test_numbers_and_survival() -> None:
    rows = [
        {"follow_up_years": 2.0, "event_observed": 1.0},
        {"follow_up_years": 3.0, "event_observed": 0.0, "age_years": 90.0, "age_censored": True},
        {"follow_up_years": 1.0, "event_observed": 0.0, "age_years": 15.0},
        {"age_years": float("nan")},
    ]
    split = split_of("code15", "code15", *rows)
    np.testing.assert_array_equal(task_numbers(split, "age"), [60, np.nan, np.nan, np.nan])
    years, event = task_survival(split)
    np.testing.assert_array_equal(years, [2, 3, np.nan, np.nan])
    np.testing.assert_array_equal(event, [1, 0, np.nan, np.nan])
    with pytest.raises(EvaluationError, match="no follow-up"):
        task_survival(split_of("sph", "aha", {}))
    with pytest.raises(EvaluationError, match="no number"):
        task_numbers(split, "ejection_fraction")


def test_what_nobody_has_registered_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"stands in no row of task_cohorts\.csv"):
        task_labels(split_of("ptb", "scp", {}))
    with pytest.raises(EvaluationError, match="expected labels of one vocabulary of scp"):
        task_labels(split_of("ptb_xl", "aha", {}))
    with pytest.raises(EvaluationError, match="no task 'broken_heart'"):
        task_labels(split_of("ptb_xl", "scp", {}), ["broken_heart"])
    with pytest.raises(EvaluationError, match="kind regression"):
        task_labels(split_of("ptb_xl", "scp", {}), ["age"])
