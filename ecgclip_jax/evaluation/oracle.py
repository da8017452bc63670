"""The ceiling of the ten synthetic hospitals: how likely each target is, given all that the waveform could ever tell.

Echo values and diagnoses are drawn from hidden severities and noise of their own, and waveforms from the same
severities, so no model of the waveform can rank patients better than the probability given all of them (Bayes). In the
null world of unseen targets the ceiling stands and no model can come near it; in that of tied devices a model inside
may rise above it, by the device alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.registry import registered_cohort, tasks, truth_of
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.evaluation.truth_rules import AnyOf, Threshold
from ecgclip_jax.signal.hospitals import HospitalWorld, load_world
from ecgclip_jax.signal.hospitals.population import cut, loading_matrix, residual
from ecgclip_jax.signal.hospitals.world import EchoSpec

COHORT = "synthetic_hospitals"


def oracle_scores(split: CohortSplit, names: Sequence[str]) -> Float[np.ndarray, "records tasks"]:
    """Probability of each echo or rare task given the hidden severities on the day of the ECG.

    Args:
        split: of `synthetic_hospitals` or a null world of it.
        names: tasks of the groups echo and rare; what stands on the tracing has no ceiling below 1.

    Raises:
        EvaluationError: another cohort, or a task of another group.
    """
    if registered_cohort(split.cohort) != COHORT:
        raise EvaluationError(f"{split.name}: only {COHORT} knows its ceiling; leave the oracle out for other cohorts")
    world = load_world()
    rows = [json.loads(text)["hidden"] for text in split.table.column("source_row").to_pylist()]
    hidden = np.array([[row[name] for name in world.severities] for row in rows])
    female = np.array([sex == "female" for sex in split.table.column("sex").to_pylist()], bool)
    return np.stack([_probability(world, name, hidden, female) for name in names], axis=1)


def oracle_log_hazard(split: CohortSplit) -> Float[np.ndarray, " records"]:
    """Log hazard of the event that follow-up waits for."""
    return np.array([json.loads(text)["log_hazard"] for text in split.table.column("source_row").to_pylist()])


def _probability(
    world: HospitalWorld, name: str, hidden: Float[np.ndarray, "records K"], female: Bool[np.ndarray, " records"]
) -> Float[np.ndarray, " records"]:
    if name in world.rare:
        condition = world.rare[name]
        return _beyond(world, condition.loadings, hidden, np.full(len(hidden), cut(condition.prevalence)))
    truth = truth_of(tasks()[name], COHORT, COHORT) if name in tasks() else None
    if truth is not None and isinstance(truth.rule, AnyOf):
        absent = [1 - _probability(world, part, hidden, female) for part in truth.rule.tasks]
        return np.asarray(1 - np.prod(absent, axis=0))
    if truth is None or not isinstance(truth.rule, Threshold):
        raise EvaluationError(f"{name}: the oracle knows tasks of the groups echo and rare only")
    spec = world.echo[truth.rule.measurements[0]]
    threshold = np.where(female, truth.rule.value_female, truth.rule.value)
    if spec.scale != "steps":  # a number that is stated rounded passes its threshold half a step earlier or later
        threshold = threshold + 0.5 * 10.0**-spec.decimals * (1 if truth.rule.comparison in (">", "<=") else -1)
    return _beyond(world, spec.loadings, hidden, _liability_at(spec, threshold, female))


def _liability_at(
    spec: EchoSpec, value: Float[np.ndarray, " records"], female: Bool[np.ndarray, " records"]
) -> Float[np.ndarray, " records"]:
    """Liability at which a measurement takes a value: the inverse of `signal.hospitals.echo.measured`."""
    if spec.scale == "steps":
        return np.asarray(np.array(spec.steps)[np.ceil(value).astype(int) - spec.first - 1])
    raw = np.log(value) if spec.scale == "log" else value
    return np.asarray((raw - spec.mean - spec.female * female) / spec.sd)


def _beyond(
    world: HospitalWorld,
    loadings: dict[str, float],
    hidden: Float[np.ndarray, "records K"],
    threshold: Float[np.ndarray, " records"],
) -> Float[np.ndarray, " records"]:
    row = loading_matrix(world, [loadings])
    return np.asarray(ndtr((hidden @ row[0] - threshold) / residual(row)[0]))
