"""What each record of a prepared cohort is known to have of the registry's tasks, and which one stands for a patient.

Unknown is not negative: a record without any label, one that states only something wider than the task, one of a
database that never uses a code of the task, and an echo that does not state a number, all say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW, EchoWindow, index_ecg
from ecgclip_jax.evaluation.registry import (
    CohortAvailability,
    CohortGroup,
    ExclusionRule,
    LabelSource,
    Task,
    codes_in_use,
    codes_of,
    cohort_groups,
    exclusion_codes,
    registered_cohort,
    tasks,
    the_89,
    truth_of,
)
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.evaluation.truth_rules import COMPARISONS, AnyOf, Codes, Number, Survival, Threshold
from ecgclip_jax.text.code_tables import code_rows, keys_of
from ecgclip_jax.text.concepts import widened

ADULT_YEARS = 18.0
_DECIMALS = 4
"""Numbers are stored as float32: 1.3 comes back as 1.29999995 and would miss its own threshold."""
_DATABASE_OF = {"cpsc2018": "cpsc_2018"}
"""Whole cohorts that the Challenge holds as a database."""


@dataclass(frozen=True)
class TaskLabels:
    """Records × tasks; columns in the order of `tasks`, which holds only what the cohort can state."""

    cohort: str
    tasks: tuple[str, ...]
    positive: Bool[np.ndarray, "records tasks"]
    known: Bool[np.ndarray, "records tasks"]
    """Truth is stated and no exclusion applies."""
    index: Bool[np.ndarray, "records tasks"]
    """The record is its patient's index ECG for the task."""
    n_excluded: Mapping[str, Mapping[ExclusionRule, int]]
    """By task: records with a stated truth that each rule leaves out (one record may fall under several)."""
    weight: Float[np.ndarray, " records"]
    """How many patients of the source each record's patient stands for; 1 where the cohort is not a weighted sample."""
    groups: Mapping[str, CohortGroup]
    """By task: where its labels come from."""
    unavailable: Mapping[str, str]
    """Tasks that were asked for and cannot be had here, and why."""

    @property
    def scored(self) -> Bool[np.ndarray, "records tasks"]:
        """Known index ECGs: what a test counts."""
        return np.asarray(self.known & self.index)

    @property
    def strata(self) -> Mapping[tuple[CohortAvailability, LabelSource], tuple[str, ...]]:
        """Tasks that may stand in one table and under one mean: of one availability and one source of labels."""
        found: dict[tuple[CohortAvailability, LabelSource], tuple[str, ...]] = {}
        for task in self.tasks:
            key = self.groups[task].availability, self.groups[task].label_source
            found[key] = (*found.get(key, ()), task)
        return found


@dataclass(frozen=True)
class _Truths:
    """Of one task: what is there, and where that is known."""

    positive: Bool[np.ndarray, " records"]
    known: Bool[np.ndarray, " records"]


def task_labels(
    split: CohortSplit, names: Iterable[str] | None = None, window: EchoWindow = DEFAULT_WINDOW
) -> TaskLabels:
    """Truth of the 89 tasks, or of some, for every record of a split.

    Args:
        split: of a cohort that the registry knows, or a part or null world of one.
        names: tasks; numbers and survival have their own functions.
        window: which echo an ECG may stand for.

    Raises:
        EvaluationError: a cohort without a row in the registry, labels of a vocabulary that it does not name for the
            cohort, or a task that is no yes-or-no question.
    """
    chosen = list(the_89()) if names is None else [_binary_task(name) for name in names]
    cohort, vocabulary = _registered(split), _vocabulary(split)
    reader = _Reader(split, cohort, vocabulary)
    truths: dict[str, _Truths] = {}
    unavailable: dict[str, str] = {}
    for task in chosen:
        reason = reader.why_not(task)
        if reason:
            unavailable[task.name] = reason
        else:
            truths[task.name] = reader.truths(task)
    kept = [task for task in chosen if task.name in truths]
    excluded = {rule: reader.excluded(rule) for rule in {rule for task in kept for rule in task.exclusions}}
    index = {rule: index_ecg(split, rule, window) for rule in {task.index_ecg for task in kept}}
    n_records = len(split)
    known, counts = np.zeros((n_records, len(kept)), bool), {}
    for column, task in enumerate(kept):
        stated = truths[task.name].known
        left_out = np.any([excluded[rule] for rule in task.exclusions], axis=0) if task.exclusions else np.False_
        known[:, column] = stated & ~left_out
        counts[task.name] = {rule: int((stated & excluded[rule]).sum()) for rule in task.exclusions}
    return TaskLabels(
        cohort=cohort,
        tasks=tuple(task.name for task in kept),
        positive=_columns([truths[task.name].positive for task in kept], n_records) & known,
        known=known,
        index=_columns([index[task.index_ecg] for task in kept], n_records),
        n_excluded=counts,
        weight=sampling_weights(split),
        groups={task.name: cohort_groups()[cohort, task.group] for task in kept},
        unavailable=unavailable,
    )


def task_numbers(split: CohortSplit, name: str) -> Float[np.ndarray, " records"]:
    """The number that a regression task asks for, NaN where it is unknown or the record is excluded.

    Raises:
        EvaluationError: as `task_labels`, or a task that asks for no number, or one that the cohort does not have.
    """
    task, cohort = _task(name), _registered(split)
    truth = truth_of(task, cohort, _vocabulary(split))
    if truth is None or not isinstance(truth.rule, Number) or truth.rule.name not in split.numeric_names:
        raise EvaluationError(f"{split.name} has no number for the task {name!r}: {_lacks(task, cohort)}")
    values = split.numbers(truth.rule.name)
    if truth.rule.name == "age_years":
        values = np.where(_booleans(split.table, "age_censored"), np.nan, values)
    return _without_excluded(split, task, cohort, values)


def task_survival(
    split: CohortSplit, name: str = "survival"
) -> tuple[Float[np.ndarray, " records"], Float[np.ndarray, " records"]]:
    """Years under observation from each record on, and 1 where the event ended them; NaN where unknown or excluded.

    Raises:
        EvaluationError: as `task_numbers`.
    """
    task, cohort = _task(name), _registered(split)
    truth = truth_of(task, cohort, _vocabulary(split))
    if truth is None or not isinstance(truth.rule, Survival):
        raise EvaluationError(f"{split.name} has no follow-up for the task {name!r}: {_lacks(task, cohort)}")
    years, event = split.numbers(truth.rule.years), split.numbers(truth.rule.event)
    unknown = np.isnan(years) | np.isnan(event) | (years <= 0)
    years = _without_excluded(split, task, cohort, np.where(unknown, np.nan, years))
    return years, np.where(np.isnan(years), np.nan, event)


def sampling_weights(split: CohortSplit) -> Float[np.ndarray, " records"]:
    """Weights of a case-enriched sample, 1 in any other cohort."""
    if "sampling_weight" not in split.numeric_names:
        return np.ones(len(split))
    return split.numbers("sampling_weight")


class _Reader:
    """Reads truths off one split, each of its columns once."""

    def __init__(self, split: CohortSplit, cohort: str, vocabulary: str) -> None:
        self._split, self._cohort, self._vocabulary = split, cohort, vocabulary
        codes = split.table.column("label_codes").combine_chunks()
        self._n_codes = pc.list_value_length(codes).to_numpy(zero_copy_only=False).astype(np.int64)
        flat = codes.flatten().dictionary_encode()
        self._code_of: list[str] = flat.dictionary.to_pylist()
        self._code_index = flat.indices.to_numpy(zero_copy_only=False)
        self._keys = [frozenset(keys_of(vocabulary, code)) for code in self._code_of]
        self._direct = [self._narrowest(code) for code in self._code_of]
        self._female = np.array([sex == "female" for sex in split.table.column("sex").to_pylist()], bool)
        self._sex_known = np.array([sex != "unknown" for sex in split.table.column("sex").to_pylist()], bool)

    def why_not(self, task: Task) -> str:
        """Why the cohort cannot state the task; empty if it can."""
        truth = truth_of(task, self._cohort, self._vocabulary)
        if truth is None:
            return _lacks(task, self._cohort)
        if isinstance(truth.rule, Threshold) and not set(truth.rule.measurements) & self._split.numeric_names:
            return f"no record of the split states {' or '.join(truth.rule.measurements)}"
        return ""

    def truths(self, task: Task) -> _Truths:
        """Of a task that `why_not` lets pass."""
        truth = truth_of(task, self._cohort, self._vocabulary)
        if truth is None:
            nothing = np.zeros(len(self._split), bool)
            return _Truths(nothing, nothing)
        if isinstance(truth.rule, Threshold):
            return self._beyond(truth.rule)
        if isinstance(truth.rule, AnyOf):
            parts = [self.truths(tasks()[name]) for name in truth.rule.tasks]
            positive = np.any([part.positive & part.known for part in parts], axis=0)
            return _Truths(positive, positive | np.all([part.known for part in parts], axis=0))
        if not isinstance(truth.rule, Codes):
            raise EvaluationError(f"{task.name} is no yes-or-no question; see task_numbers and task_survival")
        return self._coded(task, truth.rule)

    def excluded(self, rule: ExclusionRule) -> Bool[np.ndarray, " records"]:
        """Records that a rule leaves out; where a cohort cannot tell, nobody."""
        if rule == "age_under_18":
            return np.asarray(self._split.numbers("age_years") < ADULT_YEARS)
        paced = codes_of(tasks()["paced_rhythm"], self._vocabulary)
        codes = paced if rule == "paced_rhythm" else exclusion_codes(rule, self._vocabulary)
        return self._any_code(lambda k: not self._keys[k].isdisjoint(codes))

    def _beyond(self, rule: Threshold) -> _Truths:
        value = np.full(len(self._split), np.nan)
        for name in set(rule.measurements) & self._split.numeric_names:
            value = np.fmax(value, self._split.numbers(name))
        value = np.round(value, _DECIMALS)
        threshold = np.where(self._female, rule.value_female, rule.value)
        known = np.isfinite(value)
        if rule.value != rule.value_female:
            known &= self._sex_known
        return _Truths(known & COMPARISONS[rule.comparison](value, threshold), known)

    def _coded(self, task: Task, rule: Codes) -> _Truths:
        positive = self._any_code(lambda k: not self._keys[k].isdisjoint(rule.codes))
        if rule.asked is not None:
            asked = self._beyond(rule.asked)
            return _Truths(positive, asked.positive)
        wider = widened([task.concept]) - {task.concept}
        vague = self._any_code(lambda k: bool(self._direct[k]) and self._direct[k] <= wider)
        known = (self._n_codes > 0) & (positive | ~vague)
        return _Truths(positive, known & self._in_use(rule.codes))

    def _in_use(self, codes: frozenset[str]) -> Bool[np.ndarray, " records"]:
        """Whether the record's database uses any of the codes at all."""
        if self._vocabulary != "snomed":
            return np.ones(len(self._split), bool)
        whole = _DATABASE_OF.get(self._cohort)
        databases = [whole or site for site in self._split.table.column("site").to_pylist()]
        uses = {database: codes_in_use(database) for database in set(databases)}
        able = {database: used is None or not used.isdisjoint(codes) for database, used in uses.items()}
        return np.array([able[database] for database in databases], bool)

    def _any_code(self, fits: Callable[[int], bool]) -> Bool[np.ndarray, " records"]:
        """Records with a code that fits, given by its number."""
        fitting = np.array([fits(k) for k in range(len(self._code_of))], bool)
        if not len(self._code_index):
            return np.zeros(len(self._split), bool)
        record = np.repeat(np.arange(len(self._split)), self._n_codes)
        found = np.zeros(len(self._split), bool)
        found[record[fitting[self._code_index]]] = True
        return found

    def _narrowest(self, code: str) -> frozenset[str]:
        """The concepts that a code states directly, by the longest of its keys that states any."""
        rows = code_rows(self._vocabulary)
        stated = [rows[key].concepts for key in keys_of(self._vocabulary, code) if key in rows and rows[key].concepts]
        return frozenset(stated[-1]) if stated else frozenset()


def _columns(columns: Sequence[Bool[np.ndarray, " records"]], n_records: int) -> Bool[np.ndarray, "records tasks"]:
    return np.stack(columns, axis=1) if columns else np.zeros((n_records, 0), bool)


def _registered(split: CohortSplit) -> str:
    cohort = registered_cohort(split.cohort)
    if cohort is None:
        known = sorted({name for name, _ in cohort_groups()})
        raise EvaluationError(
            f"{split.cohort} stands in no row of task_cohorts.csv, so nobody has said what its labels mean for the "
            f"tasks; there are {', '.join(known)}"
        )
    return cohort


def _vocabulary(split: CohortSplit) -> str:
    found = sorted(set(split.table.column("label_vocabulary").to_pylist()))
    cohort = _registered(split)
    expected = {v for (name, _), entry in cohort_groups().items() if name == cohort for v in entry.vocabularies}
    if len(found) != 1 or found[0] not in expected:
        raise EvaluationError(
            f"{split.name}: expected labels of one vocabulary of {', '.join(sorted(expected))}, found "
            f"{', '.join(found) or 'no record'}; add the cohort's form to task_cohorts.csv"
        )
    return str(found[0])


def _task(name: str) -> Task:
    if name not in tasks():
        raise EvaluationError(f"no task {name!r} in the registry; there are {', '.join(tasks())}")
    return tasks()[name]


def _binary_task(name: str) -> Task:
    task = _task(name)
    kinds: tuple[Literal["binary"], Literal["multi_label"]] = ("binary", "multi_label")
    if task.kind not in kinds:
        raise EvaluationError(f"{name} is a task of kind {task.kind}; see task_numbers and task_survival")
    return task


def _lacks(task: Task, cohort: str) -> str:
    if (cohort, task.group) not in cohort_groups():
        return f"{cohort} has no labels of the group {task.group}"
    return f"no code and no measurement of {cohort} states it"


def _booleans(table: pa.Table, column: str) -> Bool[np.ndarray, " records"]:
    return np.array(table.column(column).to_pylist(), bool)


def _without_excluded(
    split: CohortSplit, task: Task, cohort: str, values: Float[np.ndarray, " records"]
) -> Float[np.ndarray, " records"]:
    reader = _Reader(split, cohort, _vocabulary(split))
    for rule in task.exclusions:
        values = np.where(reader.excluded(rule), np.nan, values)
    return values
