"""The ten hospitals as a prepared cohort: splits, labels that agree with measurements, what tasks make of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ecgclip_jax.data.sources import CohortSplit, open_cohort
from ecgclip_jax.evaluation.index_ecg import EchoWindow, index_ecg
from ecgclip_jax.evaluation.oracle import oracle_scores
from ecgclip_jax.evaluation.registry import the_89
from ecgclip_jax.evaluation.task_labels import task_labels, task_survival
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.signal.hospitals import load_world
from ecgclip_jax.signal.synthesis import FINDINGS
from ecgclip_jax.spec.experiment import Source
from tfds_builders.common.build import build
from tfds_builders.common.cohort import BuildError
from tfds_builders.synthetic_hospitals.cohort import SyntheticHospitals

WORLD = load_world()
EXTERNAL = tuple(h.name for h in WORLD.hospitals if h.role == "external")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CohortSplit]:
    folder = tmp_path_factory.mktemp("data")
    build(SyntheticHospitals(size=420), folder, workers=0)
    names = ("train", "validation", "test", *EXTERNAL)
    return {name: open_cohort(folder, Source(cohort="synthetic_hospitals", split=name)) for name in names}


def test_every_hospital_has_its_split_and_patients_keep_to_one(splits: dict[str, CohortSplit]) -> None:
    assert 350 <= sum(map(len, splits.values())) <= 490
    seen: dict[str, str] = {}
    for name, split in splits.items():
        sites = set(split.table.column("site").to_pylist())
        assert sites == ({"alder"} if name not in EXTERNAL else {name})
        for patient in split.table.column("patient_id").to_pylist():
            assert seen.setdefault(patient, name) == name
    german = splits["elm"].table.column("report_language").to_pylist()
    assert german.count("de") > len(german) / 2
    assert "de" not in splits["train"].table.column("report_language").to_pylist()


def test_labels_are_findings_and_coded_diagnoses(splits: dict[str, CohortSplit]) -> None:
    rare = {f"diagnosis_{key}" for key in WORLD.rare}
    past = {f"diagnosis_{key}" for key in WORLD.past}
    for split in splits.values():
        stays = split.numbers("icd_coded_stays")
        for row, record in enumerate(split.table.to_pylist()):
            codes, truth = set(record["label_codes"]), json.loads(record["source_row"])
            assert codes <= set(FINDINGS) | rare | past
            assert bool(codes & rare) <= (stays[row] > 0)
            assert {c.removeprefix("diagnosis_") for c in codes & (rare | past)} <= set(truth["conditions"])
            assert set(truth["hidden"]) == set(WORLD.severities)
            assert not any(name.replace("_", " ") in record["report_raw"].lower() for name in WORLD.echo)


def test_all_89_tasks_can_be_asked_of_every_hospital(splits: dict[str, CohortSplit]) -> None:
    for split in splits.values():
        labels = task_labels(split)
        assert {*labels.tasks, *labels.unavailable} == {task.name for task in the_89()}
        assert all("no record of the split states" in why for why in labels.unavailable.values())
        assert {entry.availability for entry in labels.groups.values()} == {"synthetic"}
        for column, name in enumerate(labels.tasks):
            if name in FINDINGS and name not in WORLD.rare:
                codes = split.table.column("label_codes").to_pylist()
                found = np.array([name in c for c in codes])
                np.testing.assert_array_equal(labels.positive[:, column], found & labels.known[:, column])
    train = task_labels(splits["train"])
    assert len(train.tasks) == 89
    assert {key: len(of) for key, of in train.strata.items()} == {
        ("synthetic", "report"): 45,
        ("synthetic", "independent"): 44,
    }


def test_echo_labels_are_known_where_an_echo_stated_them(splits: dict[str, CohortSplit]) -> None:
    split = splits["train"]
    labels, ejection = task_labels(split), split.numbers("lvef_percent")
    column = labels.tasks.index("reduced_ejection_fraction")
    known = labels.known[:, column]
    assert not known[np.isnan(ejection)].any()
    assert 0.3 < known.mean() < 0.95
    np.testing.assert_array_equal(labels.positive[known, column], ejection[known] <= 45)
    gap = split.numbers("echo_gap_days")
    chosen = index_ecg(split, "before_echo", EchoWindow())
    assert ((gap[chosen] >= 0) & (gap[chosen] <= 30)).all()


def test_a_case_enriched_sample_carries_its_weights(splits: dict[str, CohortSplit]) -> None:
    weights = np.concatenate([task_labels(split, ["normal_ecg"]).weight for split in splits.values()])
    assert weights.min() == 1
    assert 1 < np.median(weights) <= weights.max() == pytest.approx(1 / WORLD.enrichment.least)


def test_risk_factors_have_gaps_and_follow_up_is_there(splits: dict[str, CohortSplit]) -> None:
    cholesterol = splits["train"].numbers("total_cholesterol_mmol_l")
    assert 0 < np.isnan(cholesterol).mean() < 0.5
    years, event = task_survival(splits["train"])
    stated = ~np.isnan(years)
    assert 0.6 < stated.mean() < 1
    assert 0 < event[stated].mean() < 1


def test_the_oracle_knows_the_synthetic_world_only(splits: dict[str, CohortSplit]) -> None:
    scores = oracle_scores(splits["test"], ["reduced_ejection_fraction", "structural_heart_disease", "ebstein_anomaly"])
    assert scores.shape == (len(splits["test"]), 3)
    assert ((scores > 0) & (scores < 1)).all()
    assert (scores[:, 1] >= scores[:, 0]).all(), "a composite is at least as likely as its parts"
    with pytest.raises(EvaluationError, match="groups echo and rare only"):
        oracle_scores(splits["test"], ["atrial_fibrillation"])


def test_a_larger_cohort_moves_no_patient() -> None:
    def split_of(size: int) -> dict[tuple[str, int], str]:
        found = SyntheticHospitals(size=size)._splits().items()
        return {(hospital, int(i)): split for split, (hospital, sample) in found for i in sample.patient_id}

    assert split_of(420).items() <= split_of(1200).items()


def test_the_plan_counts_every_ecg_once_and_a_null_world_has_its_own_name() -> None:
    default, null = SyntheticHospitals(size=420), SyntheticHospitals(size=420, world="unseen_targets")
    plan = default.plan()
    assert sum(shard.source_rows for shard in plan.shards) == plan.source_rows
    assert null.facts.name == "synthetic_hospitals_unseen_targets"
    assert (
        plan.source_hash
        != null.plan().source_hash
        != SyntheticHospitals(size=420, sampling="source").plan().source_hash
    )


@pytest.mark.parametrize("options", [{"size": 10}, {"seed": -1}, {"world": "flat"}, {"sampling": "greedy"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(BuildError, match=next(iter(options))):
        SyntheticHospitals(**options)
