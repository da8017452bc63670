"""Every model under every protocol on one set of cohorts: fitted on training and validation, scored on every test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

import numpy as np

from ecgclip_jax.evaluation.embedding import array_key
from ecgclip_jax.evaluation.oracle import COHORT as HOSPITALS
from ecgclip_jax.evaluation.oracle import oracle_scores
from ecgclip_jax.evaluation.predictions import save_predictions
from ecgclip_jax.evaluation.protocols.few_labels import LabelDraw, label_draws, record_draws
from ecgclip_jax.evaluation.protocols.linear_probe import DEFAULT
from ecgclip_jax.evaluation.registry import registered_cohort, tasks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, Scored
from ecgclip_jax.evaluation.suites.arrays import SplitArrays, embed_set
from ecgclip_jax.evaluation.suites.beside import beside_rows
from ecgclip_jax.evaluation.suites.claims import Tested
from ecgclip_jax.evaluation.suites.context import Suite, SuiteModel
from ecgclip_jax.evaluation.suites.data_scale import with_data_scale
from ecgclip_jax.evaluation.suites.fitting import Job, fit_boosting, neighbour_job, probe_jobs, whole
from ecgclip_jax.evaluation.suites.guards import hospital_rows
from ecgclip_jax.evaluation.suites.maps import save_map
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit
from ecgclip_jax.evaluation.suites.operating_points import Deployed
from ecgclip_jax.evaluation.suites.released import best_test_epoch
from ecgclip_jax.evaluation.suites.side_by_side import fitted_in_turn, tunings_at_once
from ecgclip_jax.evaluation.suites.splits import test_split
from ecgclip_jax.evaluation.suites.tuning import TuningInputs, TuningPlan
from ecgclip_jax.evaluation.suites.wording import zero_shot
from ecgclip_jax.evaluation.trivial import TRIVIAL_FEATURES, fill_missing, training_medians
from ecgclip_jax.spec.evaluation import GradientProbeSpec
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH

TRIVIAL, TABULAR, ORACLE = "trivial features", "gradient boosting", "oracle ceiling"


@dataclass(frozen=True)
class SetScores:
    """Of one set: everything scored per test cohort, and rows about numbers, survival and hospitals."""

    tests: tuple[Tested, ...]
    other_rows: tuple[ResultRow, ...]


def score_set(suite: Suite, opened: OpenSet, *, is_null: bool) -> SetScores:
    """Everything scored on a set's tests. In a null world the run and its untrained twin are probed, nothing else."""
    spec = suite.spec
    twins = {f"untrained seed {s}": suite.models.untrained(s) for s in range(spec.untrained_seeds)}
    encoders = {PRETRAINED: suite.models.pretrained} | twins | ({} if is_null else dict(suite.models.arms))
    with suite.stage("embedding"):
        encoders = with_data_scale(encoders, opened.train, suite.store)
        arrays = embed_set(
            opened,
            encoders,
            suite.store,
            lambda name, n: suite.bar(f"embed {opened.name} {name}", n),
            suite.wanted,
        )
    draws = _draws(suite, opened)
    jobs = list(_probe_jobs(suite, opened, encoders, arrays, draws))
    at_once = tunings_at_once()
    plan = TuningPlan(TuningInputs(opened, at_once), spec.fine_tuning, suite.bar)
    if "fine_tune" in spec.protocols and not is_null:
        jobs += _tuning_jobs(suite, plan, draws)
    scored: dict[str, list[Scored]] = {test.name: [] for test in opened.tests}
    if "zero_shot" in spec.protocols:
        with suite.stage("zero-shot"):
            scored |= zero_shot(opened, encoders, arrays, suite.prompts)
    advance, deployed = suite.bar(f"fit {opened.name}", len(jobs)), Deployed.of(opened, tuple(twins))
    for protocol, group in groupby(jobs, key=attrgetter("protocol")):
        own = list(group)
        with suite.stage(protocol.replace("_", " ")):
            fits = fitted_in_turn(protocol, own, opened, suite.store, plan, at_once)
            for job, fitted in zip(own, fits, strict=True):
                deployed.learn(job, fitted)
                for test in opened.tests:
                    scored[test.name].append(fitted.scored(job.arm, job.protocol, job.draw, test))
                    scored[test.name] += best_test_epoch(job, fitted, test)
                advance(1)
    found = []
    for test in opened.tests:
        scored[test.name] += _ceiling(test, opened.names)
        split = test_split(suite.spec, test, suite.access)
        save_predictions(suite.folder, f"{opened.name}-{test.name}", test.table, split, scored[test.name], suite.keep)
        found.append(Tested(test.name, split, tuple(scored[test.name])))
    if not is_null:
        with suite.stage("map of embeddings"):
            save_map(suite, opened, arrays)
    arms = [Arm(name, model.fingerprint) for name, model in encoders.items() if name == PRETRAINED or name in twins]
    with suite.stage("numbers, survival and hospitals"):
        rows = hospital_rows(suite.spec, opened, arrays, arms, suite.access)
        rows += beside_rows(opened, [test.split for test in found], arrays, arms, suite.spec.beside, suite.warnings)
    if not is_null:
        with suite.stage("operating points"):
            rows += deployed.rows(found)
            deployed.save(suite.folder)
    return SetScores(tuple(found), tuple(rows))


def _draws(suite: Suite, opened: OpenSet) -> list[LabelDraw]:
    """Nested draws of training patients; all labels are one draw."""
    spec = suite.spec
    few = [f for f in spec.fractions if f < ALL_LABELS]
    if spec.few_labels == "records":
        found = record_draws(opened.train.n_records, few)
    else:
        found = label_draws(opened.train.table, few, spec.draws)
    return [*found, whole(opened)] if ALL_LABELS in spec.fractions else found


def _with_seeds(suite: Suite, draws: Sequence[LabelDraw]) -> list[LabelDraw]:
    """Draws of few labels as they are; all labels once for a solved probe, several times for one by gradient."""
    several = suite.spec.seeds if isinstance(suite.spec.probe, GradientProbeSpec) else 1
    return [replace(d, repeat=n) for d in draws for n in (range(several) if d.fraction == ALL_LABELS else [d.repeat])]


def _probe_jobs(
    suite: Suite,
    opened: OpenSet,
    encoders: Mapping[str, SuiteModel],
    arrays: Mapping[str, SplitArrays],
    draws: Sequence[LabelDraw],
) -> Iterator[Job]:
    """What reads frozen features of every encoder; trivial features; boosting on a hospital's own table."""
    protocols = suite.spec.protocols
    for name, model in encoders.items():
        arm, features = (
            Arm(name, model.fingerprint),
            {split: own.models[name].features for split, own in arrays.items()},
        )
        if "linear_probe" in protocols:
            yield from probe_jobs(arm, features, opened, _with_seeds(suite, draws), suite.spec.probe)
        if "nearest_neighbours" in protocols:
            yield neighbour_job(arm, features, opened)
    if "linear_probe" not in protocols:
        return
    medians = training_medians(arrays[opened.train.name].trivial)
    plain = {split: fill_missing(own.trivial, medians) for split, own in arrays.items()}
    yield from probe_jobs(Arm(TRIVIAL, array_key(*TRIVIAL_FEATURES)), plain, opened, draws, DEFAULT)
    columns = {split: own.tabular for split, own in arrays.items()}
    yield Job(Arm(TABULAR, ""), "tabular", whole(opened), (TABULAR,), fit_boosting(opened, columns))


def _tuning_jobs(suite: Suite, plan: TuningPlan, drawn: Sequence[LabelDraw]) -> Iterator[Job]:
    """The run and random weights on every draw, with all labels under several seeds; the ladder at its fractions.

    Baselines and null worlds are probed only: to be fine-tuned they would need the search that claims have.
    """
    spec, models, draws = suite.spec, suite.models, list[LabelDraw]()
    for draw in drawn:
        many = range(spec.seeds) if draw.fraction == ALL_LABELS else [draw.repeat]
        draws += [replace(draw, repeat=seed) for seed in many]
    for draw in draws:
        scratch = models.untrained(draw.repeat)
        yield plan.job(Arm(PRETRAINED, models.pretrained.fingerprint), lambda: models.pretrained, draw)
        yield plan.job(Arm(SCRATCH, scratch.fingerprint, draw.repeat), lambda model=scratch: model, draw)
    ladder = [arm.name for arm in spec.arms if arm.role == "ladder"]
    for name, model in ((name, model) for name, model in models.arms.items() if name in ladder):
        for draw in draws:
            if draw.fraction in spec.ladder_fractions:
                yield plan.job(Arm(name, model.fingerprint), lambda model=model: model, draw)


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
