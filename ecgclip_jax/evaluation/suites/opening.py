"""Cohorts of a suite, opened: which records count for which task, and what is not at hand, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.data.sources import CohortError, CohortSplit, NoSuchSplitError, open_cohort
from ecgclip_jax.evaluation.class_labels import class_labels, label_set_of
from ecgclip_jax.evaluation.embedding import READ_AT_A_TIME, array_key
from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW, EchoWindow
from ecgclip_jax.evaluation.protocols.tuning_data import Chunk
from ecgclip_jax.evaluation.registry import CohortAvailability, tasks, the_89
from ecgclip_jax.evaluation.selection import Overlapping, choose_rows
from ecgclip_jax.evaluation.suites.changed_input import changed
from ecgclip_jax.evaluation.task_labels import TaskLabels, task_labels
from ecgclip_jax.evaluation.tasks import EvaluationError, patient_index
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.suites import CohortSet, InputChange, SuiteSpec, TestCohort
from ecgclip_jax.text.label_sets import label_set


@dataclass(frozen=True)
class Part:
    """The chosen records of one split."""

    opened: CohortSplit
    rows: Int[np.ndarray, "records"]

    @cached_property
    def table(self) -> pa.Table:
        """Their facts."""
        return self.opened.table.take(pa.array(self.rows))


@dataclass(frozen=True)
class SuiteSplit:
    """Records that count together, with their truth about every task of the suite."""

    name: str
    parts: tuple[Part, ...]
    labels: Labels
    """Concepts are tasks; what the cohort cannot state is known of nobody."""
    weight: Float[np.ndarray, "records"]
    patient: Int[np.ndarray, "records"]
    label_source: dict[str, str]
    """By task, of the cohort."""
    availability: CohortAvailability
    unavailable: dict[str, str]
    """Tasks that the cohort cannot state, and why."""

    @property
    def n_records(self) -> int:
        """All parts together."""
        return len(self.weight)

    @cached_property
    def table(self) -> pa.Table:
        """Facts of all parts."""
        return pa.concat_tables([part.table for part in self.parts], promote_options="default")

    @cached_property
    def records_key(self) -> str:
        """Of the cohorts' versions and the records in their order."""
        return array_key(*(f"{part.opened.fingerprint} {part.rows.tolist()}" for part in self.parts))

    @cached_property
    def labels_key(self) -> str:
        """Of the records and all that is known of them."""
        labels = self.labels
        return array_key(self.records_key, *labels.concepts, labels.positive.tobytes(), labels.known.tobytes())

    @property
    def weighted(self) -> bool:
        """Whether it is a case-enriched sample."""
        return bool((self.weight != 1).any())

    def stored_chunks(self) -> Iterator[Chunk]:
        """The stored ECGs and their mains frequencies, in order."""
        for part in self.parts:
            mains = part.opened.numbers("mains_hz")
            for start in range(0, len(part.rows), READ_AT_A_TIME):
                rows = part.rows[start : start + READ_AT_A_TIME]
                yield part.opened.read_ecg(rows.tolist()), mains[rows].astype(np.float32)


@dataclass(frozen=True)
class OpenSet:
    """A set of cohorts as far as it is at hand."""

    name: str
    train: SuiteSplit
    validation: SuiteSplit
    tests: tuple[SuiteSplit, ...]
    internal: str
    """Name of the internal test."""
    missing: dict[str, str] = field(default_factory=dict)
    """External cohorts without data, and how to get them."""
    concepts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By label: the concepts whose prompts ask for it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its labels: tasks of the suite, or classes of a published label set."""
        return self.train.labels.concepts


def suite_tasks(spec: SuiteSpec) -> tuple[str, ...]:
    """Names of the suite's yes-or-no tasks, in the registry's order.

    Raises:
        EvaluationError: a name that the registry does not have.
    """
    if stray := [name for name in spec.tasks if name not in tasks()]:
        raise EvaluationError(f"suite {spec.name}: no such tasks {', '.join(stray)}; there are {', '.join(tasks())}")
    return tuple(task.name for task in the_89() if not spec.tasks or task.name in spec.tasks)


def open_set(
    data_dir: str | Path,
    cohorts: CohortSet,
    names: Sequence[str],
    exposure: str | Path | None,
    on_overlap: Overlapping,
    warnings: list[str],
    window: EchoWindow = DEFAULT_WINDOW,
) -> OpenSet | str:
    """Opens what is prepared; a reason instead if nothing can be learnt or tested inside.

    Training and validation keep every first window of which a task is known; a test keeps index ECGs, of an echo those
    that `window` lets stand for it.

    Raises:
        EvaluationError: a patient in two roles, or overlap with pre-training if that is to be refused.
    """

    try:
        asked = _asked(data_dir, cohorts, names, window)
        opener = _Opener(Path(data_dir), asked, cohorts.input, exposure, on_overlap, warnings)
        train = opener.learning("train", cohorts.train)
        validation = opener.learning("validation", cohorts.validation)
        learnt = _waveforms(train) | _waveforms(validation)
        internal = opener.testing(cohorts.internal, learnt)
    except CohortError as error:
        return str(error)
    external, missing = [], {}
    for cohort in cohorts.external:
        try:
            external.append(opener.testing(cohort, learnt))
        except CohortError as error:
            missing[cohort.name] = str(error)
    tests = internal, *external
    found = OpenSet(cohorts.name, train, validation, tests, cohorts.internal.name, missing, asked.concepts)
    _require_disjoint(found)
    return found


def _waveforms(split: SuiteSplit) -> frozenset[str]:
    return frozenset(split.table.column("waveform_sha256").to_pylist())


@dataclass(frozen=True)
class _Asked:
    """What is asked of every record of a set, and how the answer is read off."""

    concepts: dict[str, tuple[str, ...]]
    """By label, in the labels' order."""
    learning: Callable[[CohortSplit], TaskLabels]
    testing: Callable[[CohortSplit], TaskLabels]


def _asked(
    data_dir: str | Path, cohorts: CohortSet, names: Sequence[str], window: EchoWindow = DEFAULT_WINDOW
) -> _Asked:
    """The suite's tasks, or the classes of the set's own label set.

    Raises:
        CohortError: nothing to learn from is at hand, or its labels are in none of the label set's forms.
    """
    if not cohorts.label_sets:

        def tasks_of(split: CohortSplit) -> TaskLabels:
            return task_labels(split, names, window)

        return _Asked({name: (tasks()[name].concept,) for name in names}, tasks_of, tasks_of)
    chosen = label_set_of(open_cohort(data_dir, cohorts.train[0]), cohorts.label_sets)
    learnt = label_set(cohorts.learnt_label_set) if cohorts.learnt_label_set else chosen

    def positional(split: CohortSplit) -> TaskLabels:
        return replace(class_labels(split, learnt), tasks=tuple(c.name for c in chosen.classes))

    return _Asked({c.name: c.concepts for c in chosen.classes}, positional, lambda split: class_labels(split, chosen))


@dataclass(frozen=True)
class _Opener:
    """Opens splits and picks their records; what a reader must know goes into `warnings`."""

    data_dir: Path
    asked: _Asked
    change: InputChange
    exposure: str | Path | None
    on_overlap: Overlapping
    warnings: list[str]

    def _open(self, source: Source) -> CohortSplit:
        return changed(open_cohort(self.data_dir, source), self.change)

    def learning(self, name: str, sources: Sequence[Source]) -> SuiteSplit:
        """Every first window of which some task is known."""
        return self._joined(name, [self._part(self._open(source)) for source in sources])

    def testing(self, cohort: TestCohort, learnt: frozenset[str]) -> SuiteSplit:
        """Index ECGs that pre-training has not seen and whose waveform nobody learns from here.

        Cohorts share records (PTB-XL is a part of the Challenge 2021), so other names are not other ECGs.
        """
        parts = [self._part(split, cohort.name, learnt) for split in self._present(cohort.sources)]
        return self._joined(cohort.name, parts)

    def _present(self, sources: Sequence[Source]) -> list[CohortSplit]:
        """The splits that a cohort has; a small one may lack some."""
        found, missing = list[CohortSplit](), list[NoSuchSplitError]()
        for source in sources:
            try:
                found.append(self._open(source))
            except NoSuchSplitError as error:
                missing.append(error)
        if not found:
            raise missing[0]
        return found

    def _part(
        self, split: CohortSplit, test: str = "", learnt: frozenset[str] = frozenset()
    ) -> tuple[Part, TaskLabels, Labels]:
        truth = self.asked.testing(split) if test else self.asked.learning(split)
        counted = truth.scored if test else truth.known
        allowed = np.zeros(len(split), bool)
        allowed[choose_rows(split, self.exposure if test else None, self.on_overlap, self.warnings)] = True
        if learnt:
            shared = np.array([own in learnt for own in split.table.column("waveform_sha256").to_pylist()], bool)
            if (allowed & shared).any():
                n_shared = int((allowed & shared).sum())
                self.warnings.append(f"{test}: {n_shared} records left out, their waveforms are learnt from")
            allowed &= ~shared
        rows = np.flatnonzero(allowed & counted.any(axis=1))
        names = tuple(self.asked.concepts)
        positive, known = np.zeros((2, len(rows), len(names)), bool)
        for column, task in enumerate(truth.tasks):
            index = names.index(task)
            known[:, index] = counted[rows, column]
            positive[:, index] = truth.positive[rows, column] & known[:, index]
        return Part(split, rows), truth, Labels(names, positive, known)

    def _joined(self, name: str, found: Sequence[tuple[Part, TaskLabels, Labels]]) -> SuiteSplit:
        parts = tuple(part for part, _, _ in found)
        if not any(len(part.rows) for part in parts):
            raise CohortError(f"{name}: no record that may be used knows any task of the suite")
        groups = {task: group for _, own, _ in found for task, group in own.groups.items()}
        availabilities = sorted({group.availability for group in groups.values()})
        if len(availabilities) != 1:
            raise EvaluationError(f"{name}: expected labels of one availability, found {', '.join(availabilities)}")
        patient, without_id = patient_index(pa.concat_tables(_identified(part) for part in parts))
        if without_id:
            self.warnings.append(
                f"{name}: {without_id} of {len(patient)} records have no patient id; each counts as a patient of its "
                "own, so intervals may be too narrow"
            )
        return SuiteSplit(
            name=name,
            parts=parts,
            labels=Labels(
                tuple(self.asked.concepts),
                np.concatenate([matrix.positive for _, _, matrix in found]),
                np.concatenate([matrix.known for _, _, matrix in found]),
            ),
            weight=np.concatenate([own.weight[part.rows] for part, own, _ in found]),
            patient=patient,
            label_source={task: group.label_source for task, group in groups.items()},
            availability=availabilities[0],
            unavailable={t: why for _, own, _ in found for t, why in own.unavailable.items() if t not in groups},
        )


def _identified(part: Part) -> pa.Table:
    """Patient ids that are unique across cohorts."""
    table = part.table.select(["patient_id", "patient_id_known"])
    ids = [f"{part.opened.cohort}/{own}" for own in table.column("patient_id").to_pylist()]
    return pa.table({"patient_id": ids, "patient_id_known": table.column("patient_id_known")})


def _require_disjoint(opened: OpenSet) -> None:
    """No patient may stand in two roles: what is chosen on validation must be new to the test."""
    seen: dict[str, str] = {}
    roles = [("train", opened.train), ("validation", opened.validation), *(("test", t) for t in opened.tests)]
    for role, split in roles:
        table = pa.concat_tables(_identified(part) for part in split.parts)
        known = table.column("patient_id_known").to_pylist()
        for patient in {i for i, k in zip(table.column("patient_id").to_pylist(), known, strict=True) if k}:
            if seen.setdefault(patient, role) != role:
                raise EvaluationError(
                    f"{opened.name}: a patient of {split.name} ({role}) is also in {seen[patient]}; roles must not "
                    "share patients"
                )
