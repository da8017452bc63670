"""The 89 tasks: 45 ECG diagnoses, 39 echocardiographic targets and 5 rare diseases, as a reviewed table.

ECGCLIP (arXiv 2605.25446) evaluates 45 + 39 + 5 tasks, but its list is not public: its abstract names atrial
fibrillation, STEMI and four of the five rare diseases. This list is a stand-in of the same shape, ours, with the source
of every definition beside it. Results on it can be compared with each other, not with the paper's numbers.

Tables under `data/`: `tasks.csv` what is asked, `task_cohorts.csv` how a cohort came by its labels of a group,
`task_truth.csv` the rule per task and cohort where it is not "any code of the concept", `task_sources.csv` the sources.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, TypeVar, get_args

from ecgclip_jax.evaluation.truth_rules import AnyOf, Codes, RegistryError, Rule, parse_rule
from ecgclip_jax.text.code_tables import VOCABULARIES
from ecgclip_jax.text.concepts import CONCEPTS

Group = Literal["ecg", "echo", "rare", "beside"]
Kind = Literal["binary", "multi_label", "regression", "time_to_event"]
IndexRule = Literal["one_per_patient", "before_echo"]
Availability = Literal["real_here", "obtainable", "synthetic_only"]
"""Of a task: open data of it are at hand, others can be asked for, or only the synthetic world has it."""
CohortAvailability = Literal["real_here", "obtainable", "synthetic"]
LabelSource = Literal["report", "independent", "human_reread"]
"""Derived from text that a model may have been trained on, from another source, or by people who read the tracing."""
ExclusionRule = Literal["age_under_18", "paced_rhythm", "heart_transplant", "prior_valve_intervention"]

COUNTS: Mapping[Group, int] = {"ecg": 45, "echo": 39, "rare": 5}
"""The paper's shape; age, ejection fraction and survival stand beside it."""


@dataclass(frozen=True)
class Task:
    """One thing to predict; columns of `tasks.csv`."""

    name: str
    title: str
    group: Group
    kind: Kind
    concept: str
    """Whose prompts ask for it; empty for a number."""
    also_stated_by: tuple[frozenset[str], ...]
    """Sets of concepts of which one code must state all: an anterior infarction that is acute."""
    index_ecg: IndexRule
    exclusions: tuple[ExclusionRule, ...]
    minimum_positives: int
    """In the test set, below which no average precision is claimed."""
    availability: Availability
    definition: str
    source: str


@dataclass(frozen=True)
class CohortGroup:
    """How a cohort came by its labels of a group of tasks; columns of `task_cohorts.csv`."""

    cohort: str
    vocabularies: tuple[str, ...]
    """A cohort that is published in two forms has two."""
    group: Group
    availability: CohortAvailability
    label_source: LabelSource
    ascertainment: str
    negative: str
    unknown: str
    source: str


@dataclass(frozen=True)
class Truth:
    """How a record's truth is read off; a row of `task_truth.csv`, or made from the concept tables."""

    rule: Rule
    certainty: Literal["exact", "close"]
    note: str = ""


@cache
def tasks() -> Mapping[str, Task]:
    """All tasks by name, in the table's order: the 89, then those beside them.

    Raises:
        RegistryError: a table that contradicts itself; tests call this, so a wheel never holds one.
    """
    made = {row["task"]: _task(row) for row in _rows("tasks.csv", "task")}
    for group, expected in COUNTS.items():
        found = sum(task.group == group for task in made.values())
        if found != expected:
            raise RegistryError(f"tasks.csv: expected {expected} tasks of group {group}, found {found}")
    for task in made.values():
        if (task.group == "beside") != (not task.concept) or (task.concept and task.concept not in CONCEPTS):
            raise RegistryError(f"tasks.csv, {task.name}: unknown concept {task.concept!r}")
        if stray := {concept for those in task.also_stated_by for concept in those} - set(CONCEPTS):
            raise RegistryError(f"tasks.csv, {task.name}: unknown concepts {sorted(stray)}")
    return made


def the_89() -> tuple[Task, ...]:
    """The tasks of the suite, ECG diagnoses first."""
    return tuple(task for task in tasks().values() if task.group != "beside")


@cache
def cohort_groups() -> Mapping[tuple[str, Group], CohortGroup]:
    """By cohort and group of tasks.

    Raises:
        RegistryError: see `tasks`.
    """
    made: dict[tuple[str, Group], CohortGroup] = {}
    for row in _table("task_cohorts.csv"):
        where = f"task_cohorts.csv, {row['cohort']} {row['group']}"
        vocabularies = tuple(row["vocabularies"].split())
        if not vocabularies or not set(vocabularies) <= set(VOCABULARIES):
            raise RegistryError(f"{where}: expected vocabularies of {', '.join(VOCABULARIES)}, found {vocabularies}")
        entry = CohortGroup(
            row["cohort"],
            vocabularies,
            _one_of(row["group"], Group, where),
            _one_of(row["availability"], CohortAvailability, where),
            _one_of(row["label_source"], LabelSource, where),
            row["ascertainment"],
            row["negative"],
            row["unknown"],
            _source(row["source"], where),
        )
        if made.setdefault((entry.cohort, entry.group), entry) is not entry:
            raise RegistryError(f"{where} stands twice")
    return made


def registered_cohort(name: str) -> str | None:
    """The registry's name of a prepared cohort; a part (`challenge2021_georgia`) or a null world is its whole's.

    None for a cohort that the registry does not know.
    """
    known = {cohort for cohort, _ in cohort_groups()}
    fitting = [cohort for cohort in known if name == cohort or name.startswith(f"{cohort}_")]
    return max(fitting, key=len, default=None)


def truth_of(task: Task, cohort: str, vocabulary: str) -> Truth | None:
    """How the cohort states the task; None where it cannot.

    A task without a row of its own is stated by every code of its concept in the vocabulary.
    """
    if (cohort, task.group) not in cohort_groups():
        return None
    if (own := _own_truths().get((task.name, cohort))) is not None:
        return own
    if task.group != "ecg":
        return None
    codes = codes_of(task, vocabulary)
    return Truth(Codes(codes, None), "exact") if codes else None


@cache
def codes_of(task: Task, vocabulary: str) -> frozenset[str]:
    """Table keys whose statement makes an ECG task positive: the concept itself, or all of another set at once."""
    ways = [frozenset({task.concept}), *task.also_stated_by]
    return frozenset().union(
        *(frozenset.intersection(*(frozenset(CONCEPTS[c].codes[vocabulary]) for c in way)) for way in ways)
    )


@cache
def _own_truths() -> Mapping[tuple[str, str], Truth]:
    made: dict[tuple[str, str], Truth] = {}
    for row in _table("task_truth.csv"):
        where = f"task_truth.csv, {row['task']} in {row['cohort']}"
        if row["task"] not in tasks() or (row["cohort"], tasks()[row["task"]].group) not in cohort_groups():
            raise RegistryError(f"{where}: no such task, or a cohort without a row for its group in task_cohorts.csv")
        rule = parse_rule(row["rule"])
        if isinstance(rule, AnyOf) and (stray := set(rule.tasks) - set(tasks())):
            raise RegistryError(f"{where}: no such tasks {sorted(stray)}")
        truth = Truth(rule, _one_of(row["certainty"], Literal["exact", "close"], where), row["note"])
        if made.setdefault((row["task"], row["cohort"]), truth) is not truth:
            raise RegistryError(f"{where} stands twice")
    return made


@cache
def codes_in_use(database: str) -> frozenset[str] | None:
    """SNOMED codes that a database of the Challenge 2021 uses at all; None for any other.

    A code that its readers never gave is unknown there, not absent. Source: the counts of dx_mapping_scored.csv and
    dx_mapping_unscored.csv (physionetchallenges/evaluation-2021, BSD-2-Clause).
    """
    for row in _table("challenge2021_codes.csv"):
        if row["database"] == database:
            return frozenset(row["codes"].split())
    return None


@cache
def exclusion_codes(rule: ExclusionRule, vocabulary: str) -> frozenset[str]:
    """Codes of a vocabulary that put a record under an exclusion; none where it cannot tell."""
    return frozenset(
        code
        for row in _table("task_exclusions.csv")
        if (row["exclusion"], row["vocabulary"]) == (rule, vocabulary)
        for code in row["codes"].split()
    )


@cache
def registry_fingerprint() -> str:
    """SHA-256 (16 hex digits) of all tables: other rules are another evaluation."""
    folder = resources.files("ecgclip_jax.evaluation") / "data"
    digest = hashlib.sha256()
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".csv"):
            digest.update(item.name.encode() + b"\0" + item.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> frozenset[str]:
    """Names in `task_sources.csv`."""
    return frozenset(row["source"] for row in _table("task_sources.csv"))


def _task(row: Mapping[str, str]) -> Task:
    where = f"tasks.csv, {row['task']}"
    return Task(
        name=row["task"],
        title=row["name"],
        group=_one_of(row["group"], Group, where),
        kind=_one_of(row["kind"], Kind, where),
        concept=row["concept"],
        also_stated_by=tuple(frozenset(way.split("+")) for way in row["also_stated_by"].split()),
        index_ecg=_one_of(row["index_ecg"], IndexRule, where),
        exclusions=tuple(_one_of(name, ExclusionRule, where) for name in row["exclusions"].split()),
        minimum_positives=int(row["minimum_positives"]),
        availability=_one_of(row["availability"], Availability, where),
        definition=row["definition"],
        source=_source(row["source"], where),
    )


T = TypeVar("T", bound=str)


def _one_of(value: str, choices: Callable[..., T] | object, where: str) -> T:
    """The value, if it is one of a Literal's."""
    if value not in get_args(choices):
        raise RegistryError(f"{where}: expected one of {', '.join(get_args(choices))}, found {value!r}")
    return value  # type: ignore[return-value]


def _source(name: str, where: str) -> str:
    if name not in sources():
        raise RegistryError(f"{where}: source {name!r} is not in task_sources.csv")
    return name


def _rows(name: str, key: str) -> list[dict[str, str]]:
    rows = _table(name)
    keys = [row[key] for row in rows]
    if twice := sorted({k for k in keys if keys.count(k) > 1}):
        raise RegistryError(f"{name}: {', '.join(twice)} stand twice")
    return rows


def _table(name: str) -> list[dict[str, str]]:
    text = (resources.files("ecgclip_jax.evaluation") / "data" / name).read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RegistryError(f"{name}, line {number}: expected as many cells as columns")
    return rows
