"""The registry holds together: the paper's shape, known concepts, named sources, availabilities that follow."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from ecgclip_jax.evaluation import registry
from ecgclip_jax.evaluation.registry import (
    COUNTS,
    Task,
    codes_in_use,
    codes_of,
    cohort_groups,
    registered_cohort,
    sources,
    tasks,
    the_89,
    truth_of,
)
from ecgclip_jax.evaluation.truth_rules import AnyOf, Codes, Number, RegistryError, Survival, Threshold, parse_rule
from ecgclip_jax.signal.synthesis import FINDINGS
from ecgclip_jax.text.concepts import CONCEPTS
from ecgclip_jax.text.prompts import load_prompts


def availability(task: Task) -> str:
    """What `tasks.csv` must say, from the cohorts that state the task."""
    found = {
        entry.availability
        for (cohort, group), entry in cohort_groups().items()
        for vocabulary in entry.vocabularies
        if group == task.group and truth_of(task, cohort, vocabulary) is not None
    }
    return next(a for a in ("real_here", "obtainable", "synthetic") if a in found)


def test_the_shape_is_the_papers() -> None:
    assert COUNTS == {"ecg": 45, "echo": 39, "rare": 5}
    assert len(the_89()) == 89 == len({task.concept for task in the_89()})
    beside = {task.name: task.kind for task in tasks().values() if task.group == "beside"}
    assert beside == {"age": "regression", "ejection_fraction": "regression", "survival": "time_to_event"}
    named = {"cardiac_amyloidosis", "constrictive_pericarditis", "dextrocardia", "ebstein_anomaly"}
    rare = {task.name: task.source for task in tasks().values() if task.group == "rare"}
    assert {name for name, source in rare.items() if source == "ecgclip"} == named
    assert "not public" in (resources.files(registry.__package__) / "data" / "README.md").read_text()


def test_every_task_has_a_concept_with_prompts_a_source_and_a_truth() -> None:
    prompts = {language: load_prompts(language).prompts for language in ("en", "de")}
    for task in the_89():
        assert task.concept in CONCEPTS
        assert all(task.concept in of_language for of_language in prompts.values())
        assert task.source in sources()
        assert task.definition
        assert truth_of(task, "synthetic_hospitals", "synthetic_hospitals") is not None
        assert task.minimum_positives >= 20
    excluding = {row["source"] for row in registry._table("task_exclusions.csv")}
    of_cohorts = {c.source for c in cohort_groups().values()}
    assert sources() == {task.source for task in tasks().values()} | of_cohorts | excluding


def test_declared_availability_follows_from_the_rules() -> None:
    for task in tasks().values():
        assert task.availability == {"synthetic": "synthetic_only"}.get(availability(task), availability(task)), task


def test_ecg_tasks_are_what_the_synthetic_world_draws_but_for_three() -> None:
    ecg = {task.name for task in the_89() if task.group == "ecg"}
    assert set(FINDINGS) - ecg == {"sinus_rhythm", "dextrocardia", "arm_lead_reversal"}
    for name in ecg:
        assert codes_of(tasks()[name], "synthetic_hospitals") == {name}


def test_two_concepts_count_only_where_one_code_states_both() -> None:
    assert codes_of(tasks()["anterior_stemi"], "aha") == {
        "160+330",
        "165+330",
        "166+330",
        "160+331",
        "165+331",
        "166+331",
    }
    assert codes_of(tasks()["inferior_stemi"], "icd10") == {"I211"}
    assert codes_of(tasks()["anterior_stemi"], "snomed") == frozenset()


def test_echo_thresholds_and_flags_agree_where_both_are_published() -> None:
    """EchoNext's flag names carry their thresholds: lvef_lte_45, lvwt_gte_13, pasp_gte_45, tr_max_gte_32."""
    for name, flag, threshold in (
        ("reduced_ejection_fraction", "lvef_lte_45_flag", Threshold(("lvef_percent",), "<=", 45.0, 45.0)),
        ("increased_wall_thickness", "lvwt_gte_13_flag", Threshold(("lv_wall_mm",), ">=", 13.0, 13.0)),
        ("pulmonary_hypertension", "pasp_gte_45_flag", Threshold(("pasp_mmhg",), ">=", 45.0, 45.0)),
        ("raised_tricuspid_velocity", "tr_max_gte_32_flag", Threshold(("tricuspid_velocity_m_s",), ">=", 3.2, 3.2)),
    ):
        flagged = truth_of(tasks()[name], "echonext", "echonext")
        measured = truth_of(tasks()[name], "synthetic_hospitals", "synthetic_hospitals")
        assert flagged is not None
        assert flagged.rule == Codes(frozenset({flag}), None)
        assert measured is not None
        assert measured.rule == threshold


def test_parts_and_null_worlds_belong_to_their_cohort() -> None:
    assert registered_cohort("challenge2021_georgia") == "challenge2021"
    assert registered_cohort("synthetic_hospitals_unseen_targets") == "synthetic_hospitals"
    assert registered_cohort("mimic_iv_ecg") == "mimic_iv_ecg"
    assert registered_cohort("ptb") is None
    assert truth_of(tasks()["long_qt"], "ptb", "scp") is None


def test_databases_of_the_challenge_use_the_codes_they_use() -> None:
    cpsc = codes_in_use("cpsc_2018")
    assert cpsc is not None
    assert len(cpsc) == 9
    assert codes_in_use("nowhere") is None


def test_rules_are_parsed() -> None:
    assert parse_rule("codes A B") == Codes(frozenset("AB"), None)
    assert parse_rule("codes A where n >= 1") == Codes(frozenset("A"), Threshold(("n",), ">=", 1.0, 1.0))
    assert parse_rule("d_mm > 58 | female > 52") == Threshold(("d_mm",), ">", 58.0, 52.0)
    assert parse_rule("a/b >= 1.5") == Threshold(("a", "b"), ">=", 1.5, 1.5)
    assert parse_rule("any_of a b") == AnyOf(("a", "b"))
    assert parse_rule("column age_years") == Number("age_years")
    assert parse_rule("survival t e") == Survival("t", "e")
    for wrong in ("", "lvef", "x == 3", "x > 1 | female < 1", "any_of a", "codes", "codes A where yes"):
        with pytest.raises(RegistryError, match="no rule is"):
            parse_rule(wrong)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("concept", "broken_heart", "unknown concept"),
        ("source", "rumour", "not in task_sources.csv"),
        ("kind", "guess", "expected one of binary"),
        ("group", "rare", "expected 45 tasks of group ecg, found 44"),
        ("task", "sinus_bradycardia", "stand twice"),
    ],
)
def test_a_faulty_table_is_refused(monkeypatch: pytest.MonkeyPatch, column: str, value: str, message: str) -> None:
    text = (resources.files(registry.__package__) / "data" / "tasks.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    rows[0] = rows[0] | {column: value}
    real = registry._table
    monkeypatch.setattr(registry, "_table", lambda name: rows if name == "tasks.csv" else real(name))
    tasks.cache_clear()
    try:
        with pytest.raises(RegistryError, match=message):
            tasks()
    finally:
        tasks.cache_clear()
