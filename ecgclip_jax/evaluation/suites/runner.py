"""`ecgclip evaluate RUN --suite NAME`: from a run and prepared cohorts to a table, predictions and verdicts.

The order keeps test labels out of every choice: all fits are made from training and validation alone, and are kept,
before the first figure on a test split is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecgclip_jax.data.sources import strictest_access
from ecgclip_jax.evaluation.embedding import Model, Store, array_key
from ecgclip_jax.evaluation.oracle import COHORT as HOSPITALS
from ecgclip_jax.evaluation.oracle import oracle_scores
from ecgclip_jax.evaluation.predictions import save_predictions
from ecgclip_jax.evaluation.protocols.few_labels import LabelDraw, label_draws
from ecgclip_jax.evaluation.protocols.tuning_data import Tunable
from ecgclip_jax.evaluation.protocols.zero_shot import prompt_matrix, zero_shot_scores
from ecgclip_jax.evaluation.registry import registered_cohort, tasks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, Results, suppress_small_cells
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, Scored
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.selection import Overlapping
from ecgclip_jax.evaluation.suites.arrays import SplitArrays, embed_set
from ecgclip_jax.evaluation.suites.claims import Tested, Verdict, judge, save_verdicts
from ecgclip_jax.evaluation.suites.fitting import Job, fit_boosting, probe_jobs, run_job, whole
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit, open_set, suite_tasks
from ecgclip_jax.evaluation.suites.splits import test_split
from ecgclip_jax.evaluation.suites.tuning import TuningInputs, TuningPlan
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.evaluation.trivial import TRIVIAL_FEATURES, fill_missing, training_medians
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH, CohortSet, SuiteSpec
from ecgclip_jax.text.prompts import load_prompts

TRIVIAL, TABULAR, ORACLE = "trivial features", "gradient boosting", "oracle ceiling"
LABEL_METRICS = ("auroc", "average_precision", "average_precision_at_prevalence_0.05")
"""What a suite writes per label; macro means have every figure."""


@runtime_checkable
class SuiteModel(Model, Tunable, Protocol):
    """What a suite needs of a model: to embed, and to be tuned from."""


@dataclass(frozen=True)
class SuiteModels:
    """The run that is evaluated, its untrained twin by seed, and what else was pre-trained for comparison."""

    pretrained: SuiteModel
    untrained: Callable[[int], SuiteModel]
    arms: Mapping[str, SuiteModel] = field(default_factory=dict)
    exposure: Path | None = None
    """Of the run; the arms learn from the same records."""


@dataclass(frozen=True)
class SuiteOutcome:
    """Everything a suite found."""

    results: Results
    verdicts: tuple[Verdict, ...]


@dataclass
class _Suite:
    """What all stages share."""

    spec: SuiteSpec
    models: SuiteModels
    data_dir: Path
    folder: Path
    store: Store
    access: str
    keep: bool
    batch: int
    progress: Progress
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall-clock time of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def bar(self, what: str, total: int) -> Callable[[int], None]:
        """A progress bar; the result advances it."""
        task = self.progress.add_task(what, total=total)
        return lambda n: self.progress.advance(task, n)


def run_suite(
    spec: SuiteSpec,
    models: SuiteModels,
    data_dir: str | Path,
    workdir: str | Path,
    *,
    on_overlap: Overlapping = "refuse",
    batch: int = 64,
    show_progress: bool = True,
    with_patient_data: bool = False,
    notes: Sequence[str] = (),
) -> SuiteOutcome:
    """Evaluates a run on a suite; writes `workdir/evaluation/<suite>`. Stopped, it goes on where it was.

    `notes` join the warnings.

    Raises:
        EvaluationError: no cohort of the suite is prepared, a patient in two roles, or overlap with pre-training.
    """
    names = suite_tasks(spec)
    warnings = list(notes)
    sets = _open_sets(spec.cohorts, names, data_dir, models.exposure, on_overlap, warnings)
    nulls = _open_sets([w.cohorts for w in spec.null_worlds], names, data_dir, models.exposure, on_overlap, warnings)
    if not sets:
        raise EvaluationError(f"suite {spec.name}: no cohort of it is at hand: " + "; ".join(warnings))
    if models.exposure is None:
        warnings.append("no exposure table: overlap of the test sets with pre-training was not checked")
    opened = [*sets, *nulls]
    access = strictest_access([models.pretrained.access, *_access_classes(opened)])  # type: ignore[list-item]
    folder = Path(workdir) / "evaluation" / spec.name
    keep = access == "open" or with_patient_data
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not show_progress) as progress:
        store = Store(folder / "store" if keep else None)
        suite = _Suite(spec, models, Path(data_dir), folder, store, access, keep, batch, progress, warnings)
        rows, tested = list[ResultRow](), dict[str, list[Tested]]()
        for own in opened:
            is_null = own in nulls
            tests = _score_set(suite, own, names, is_null=is_null)
            for test in tests:
                with suite.stage("figures and intervals"):
                    rows += ranking_rows(test.split, test.scored, LABEL_METRICS)
            tested[own.name] = tests
        with suite.stage("claims"):
            verdicts = [
                verdict
                for own in sets
                for verdict in judge(spec.claims, own.internal, tested[own.name], spec.permutations)
            ]
    if not keep:
        rows = [suppress_small_cells(row) for row in rows]
    save_verdicts(verdicts, folder)
    (folder / "suite.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    results = Results(tuple(rows), tuple(suite.warnings), seconds=suite.seconds).save(folder, labels_in_json=False)
    return SuiteOutcome(results, tuple(verdicts))


def _open_sets(
    cohorts: Sequence[CohortSet],
    names: Sequence[str],
    data_dir: str | Path,
    exposure: Path | None,
    on_overlap: Overlapping,
    warnings: list[str],
) -> list[OpenSet]:
    found = []
    for own in cohorts:
        opened = open_set(data_dir, own, names, exposure, on_overlap, warnings)
        if isinstance(opened, str):
            warnings.append(f"{own.name}: no data: {opened}")
            continue
        warnings += [f"{own.name}, {name}: no data: {why}" for name, why in opened.missing.items()]
        found.append(opened)
    return found


def _access_classes(opened: Sequence[OpenSet]) -> list[str]:
    return [p.opened.access for s in opened for split in (s.train, s.validation, *s.tests) for p in split.parts]


def _score_set(suite: _Suite, opened: OpenSet, names: Sequence[str], *, is_null: bool) -> list[Tested]:
    """Everything scored on a set's tests. In a null world the run and its untrained twin are probed, nothing else."""
    spec = suite.spec
    twins = {f"untrained seed {s}": suite.models.untrained(s) for s in range(spec.untrained_seeds)}
    encoders = {PRETRAINED: suite.models.pretrained} | twins | ({} if is_null else dict(suite.models.arms))
    with suite.stage("embedding"):
        arrays = embed_set(
            opened, encoders, suite.store, suite.batch, lambda name, n: suite.bar(f"embed {opened.name} {name}", n)
        )
    jobs = list(_probe_jobs(suite, opened, encoders, arrays))
    plan = TuningPlan(TuningInputs(opened), spec.fine_tuning, suite.bar)
    if "fine_tune" in spec.protocols:
        jobs += _tuning_jobs(suite, opened, plan, is_null=is_null)
    scored: dict[str, list[Scored]] = {test.name: [] for test in opened.tests}
    if "zero_shot" in spec.protocols:
        with suite.stage("zero-shot"):
            _zero_shot(suite, opened, encoders, arrays, names, scored)
    advance = suite.bar(f"fit {opened.name}", len(jobs))
    for job in jobs:
        with suite.stage(job.protocol.replace("_", " ")):
            fitted = run_job(job, opened, suite.store)
            plan.remember(job, fitted)
        for test in opened.tests:
            scored[test.name].append(fitted.scored(job.arm, job.protocol, job.draw, test))
        advance(1)
    found = []
    for test in opened.tests:
        scored[test.name] += _ceiling(test, names)
        split = test_split(suite.spec, test, suite.access)
        save_predictions(suite.folder, f"{opened.name}-{test.name}", test.table, split, scored[test.name], suite.keep)
        found.append(Tested(test.name, split, tuple(scored[test.name])))
    return found


def _draws(suite: _Suite, opened: OpenSet) -> list[LabelDraw]:
    """Nested draws of training patients; all labels are one draw."""
    spec = suite.spec
    few = [f for f in spec.fractions if f < ALL_LABELS]
    found = label_draws(opened.train.table, few, spec.draws)
    return [*found, whole(opened)] if ALL_LABELS in spec.fractions else found


def _probe_jobs(
    suite: _Suite, opened: OpenSet, encoders: Mapping[str, SuiteModel], arrays: Mapping[str, SplitArrays]
) -> Iterator[Job]:
    """Linear probes of every encoder and of trivial features, and gradient boosting on a hospital's own table."""
    if "linear_probe" not in suite.spec.protocols:
        return
    draws = _draws(suite, opened)
    for name, model in encoders.items():
        features = {split: own.models[name].features for split, own in arrays.items()}
        yield from probe_jobs(Arm(name, model.fingerprint), features, opened, draws)
    medians = training_medians(arrays[opened.train.name].trivial)
    plain = {split: fill_missing(own.trivial, medians) for split, own in arrays.items()}
    yield from probe_jobs(Arm(TRIVIAL, array_key(*TRIVIAL_FEATURES)), plain, opened, draws)
    columns = {split: own.tabular for split, own in arrays.items()}
    yield Job(Arm(TABULAR, ""), "tabular", whole(opened), (TABULAR,), fit_boosting(opened, columns))


def _tuning_jobs(suite: _Suite, opened: OpenSet, plan: TuningPlan, *, is_null: bool) -> Iterator[Job]:
    """The run and random weights on every draw, with all labels under several seeds; the ladder at its fractions."""
    spec, models, draws = suite.spec, suite.models, list[LabelDraw]()
    for draw in _draws(suite, opened):
        many = range(spec.seeds) if draw.fraction == ALL_LABELS else [draw.repeat]
        draws += [replace(draw, repeat=seed) for seed in many]
    for draw in draws:
        scratch = models.untrained(draw.repeat)
        yield plan.job(Arm(PRETRAINED, models.pretrained.fingerprint), lambda: models.pretrained, draw)
        yield plan.job(Arm(SCRATCH, "random weights"), lambda model=scratch: model, draw)
    for name, model in {} if is_null else models.arms.items():
        for draw in draws:
            if draw.fraction in spec.ladder_fractions:
                yield plan.job(Arm(name, model.fingerprint), lambda model=model: model, draw)


def _zero_shot(
    suite: _Suite,
    opened: OpenSet,
    encoders: Mapping[str, SuiteModel],
    arrays: Mapping[str, SplitArrays],
    names: Sequence[str],
    scored: dict[str, list[Scored]],
) -> None:
    """Cosines with the prompts of each task's concept, for encoders that were trained with text."""
    prompts = load_prompts(suite.spec.prompt_language)
    concepts = tuple(tasks()[name].concept for name in names)
    excluded = {n: Exclusion.NO_PROMPT for n, c in zip(names, concepts, strict=True) if not prompts.prompts.get(c)}
    for name, model in encoders.items():
        if not model.experiment.objective.reads_text:
            continue
        vectors = prompt_matrix(concepts, prompts.prompts, lambda texts, m=model: np.asarray(m.encode_text(texts)))
        for test in opened.tests:
            scores = zero_shot_scores(arrays[test.name].models[name].embedding, vectors)
            scored[test.name].append(Scored(Arm(name, model.fingerprint), "zero_shot", scores, excluded))


def _ceiling(test: SuiteSplit, names: Sequence[str]) -> list[Scored]:
    """What knowing all hidden severities of the synthetic world gives, for its echo and rare tasks."""
    if any(registered_cohort(part.opened.cohort) != HOSPITALS for part in test.parts):
        return []
    known = [i for i, name in enumerate(names) if tasks()[name].group in ("echo", "rare")]
    scores = np.full(test.labels.positive.shape, np.nan)
    hidden = [oracle_scores(part.opened, [names[i] for i in known])[part.rows] for part in test.parts]
    scores[:, known] = np.concatenate(hidden)
    missing = {name: Exclusion.NO_CEILING for i, name in enumerate(names) if i not in known}
    return [Scored(Arm(ORACLE, ""), "oracle", scores, missing)]
