"""From scores to rows: every model, protocol and label of one test split under the same patient draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.row_columns import (
    NO_ESTIMATE,
    estimate_columns,
    label_columns,
    macro_columns,
    row_identity,
)
from ecgclip_jax.evaluation.scored import ClassCounts, Scored, TestSplit, Wording, class_counts
from ecgclip_jax.evaluation.tasks import exclusions
from ecgclip_jax.metrics.intervals import Scale, corrected_interval, difference_interval, seed_interval
from ecgclip_jax.metrics.operating_points import sensitivity_at
from ecgclip_jax.metrics.ranking import SortedColumn, weighted_metrics
from ecgclip_jax.metrics.resampling import bootstrap_ranking, macro_draws, sort_columns

REFERENCE_PREVALENCE = 0.05
"""At which average precisions of different hospitals may be compared (ours)."""
SPECIFICITY, TOP = 0.9, 0.05
"""Of the sensitivities at a fixed specificity and among the highest scores (the latter the Challenge 2025's)."""


class Metric(NamedTuple):
    """A figure per label: the scale of its interval, what guessing gives, and whether labels may be averaged."""

    name: str
    scale: Scale
    chance: float
    """NaN: the prevalence."""
    averaged: bool = True


METRICS = (
    Metric("auroc", "share", 0.5),
    Metric("average_precision", "share", math.nan),
    Metric("lift", "positive", 1.0, averaged=False),
    Metric(f"average_precision_at_prevalence_{REFERENCE_PREVALENCE:g}", "share", REFERENCE_PREVALENCE),
    Metric(f"sensitivity_at_specificity_{SPECIFICITY:g}", "share", 1 - SPECIFICITY),
    Metric(f"sensitivity_in_top_{TOP:g}", "share", TOP),
)


def figures_of(column: SortedColumn, weights: Shaped[np.ndarray, "units lanes"]) -> Float[np.ndarray, "metrics lanes"]:
    """The figures of `METRICS`, in their order, under each weighting."""
    ranking = weighted_metrics(column, weights, (REFERENCE_PREVALENCE,))
    return np.concatenate([ranking, sensitivity_at(column, weights, specificity=SPECIFICITY, top=TOP)])


@dataclass(frozen=True)
class Measured:
    """One arm under one protocol: values and draws of every time it was fitted."""

    scored: Scored
    """The first of its repeats."""
    value: Float[np.ndarray, "repeats labels metrics"]
    draws: Float[np.ndarray, "repeats labels metrics draws"]

    @property
    def n_repeats(self) -> int:
        """How often it was fitted."""
        return len(self.value)


def ranking_rows(
    split: TestSplit, scored: Sequence[Scored], label_metrics: Sequence[str] | None = None
) -> list[ResultRow]:
    """Rows per label and macro mean of every arm and protocol, and of every arm's difference from the first arm.

    Arms that were fitted several times are means over their repeats, with intervals for other patients and other
    repeats; differences are paired by repeat, and there are none between arms that were not fitted equally often.
    Labels have the figures of `label_metrics` (default: all), macro means all.
    """
    label_metrics = [m.name for m in METRICS] if label_metrics is None else label_metrics
    counts, rows = class_counts(split), list[ResultRow]()
    for own in grouped(scored).values():
        measured = measure(split, own)
        excluded = left_out(split, own)
        for m in measured:
            rows += _arm_rows(split, m, None, counts, excluded, label_metrics)
        for m in measured[1:]:
            if m.n_repeats == measured[0].n_repeats:
                rows += _arm_rows(split, measured[0], m, counts, excluded, label_metrics)
    return rows


Fit = tuple[str, float, Wording | None]
"""Protocol, fraction of the labels, prompts."""


def grouped(scored: Sequence[Scored]) -> dict[Fit, list[Scored]]:
    """Scores that stand side by side: of one protocol, with one fraction of the labels and one set of prompts."""
    groups: dict[Fit, list[Scored]] = {}
    for s in scored:
        groups.setdefault((s.protocol, s.fraction, s.wording), []).append(s)
    return groups


def left_out(split: TestSplit, scored: Sequence[Scored]) -> dict[str, Exclusion]:
    """One list of labels for all arms, or their means would not be comparable."""
    excluded: dict[str, Exclusion] = {}
    for s in scored:
        excluded |= s.excluded
    return excluded | exclusions(split.labels, split.min_positives)


def measure(split: TestSplit, scored: Sequence[Scored]) -> list[Measured]:
    """Every arm's figures and their draws, in the order in which the arms come; repeats in theirs.

    Labels that are left out (`left_out`), which nobody reads, are NaN: with few labels they are the most.
    """
    labels, unscorable = split.labels, left_out(split, scored)
    kept = np.array([c not in unscorable for c in labels.concepts])
    columns, lanes = [], np.ones((split.n_patients, 1), np.uint8)
    for s in scored:
        truth = labels.positive[:, kept], labels.known[:, kept]
        columns += sort_columns(*truth, s.scores[:, kept], split.patient, split.sampling)
    shape = (len(scored), len(kept), len(METRICS))
    value, draws = np.full(shape, np.nan), np.full((*shape, split.replicates), np.nan)
    if columns:
        points = np.array([figures_of(column, lanes)[:, 0] for column in columns])
        value[:, kept] = points.reshape(len(scored), -1, len(METRICS))
        common: dict[str, Any] = {"replicates": split.replicates, "seed": split.seed, "figures": figures_of}
        sampled = bootstrap_ranking(columns, split.n_patients, **common)
        draws[:, kept] = sampled.reshape(len(scored), -1, len(METRICS), split.replicates)
    found = []
    for name in dict.fromkeys(s.arm.name for s in scored):
        rows = sorted((i for i, s in enumerate(scored) if s.arm.name == name), key=lambda i: scored[i].repeat)
        found.append(Measured(scored[rows[0]], value[rows], draws[rows]))
    return found


def _arm_rows(
    split: TestSplit,
    arm: Measured,
    other: Measured | None,
    counts: Sequence[ClassCounts],
    excluded: Mapping[str, Exclusion],
    label_metrics: Sequence[str],
) -> Iterator[ResultRow]:
    for label in range(len(split.labels.concepts)):
        for metric in (i for i, m in enumerate(METRICS) if m.name in label_metrics):
            yield _label_row(split, arm, other, label, metric, counts[label], excluded)
    groups = dict.fromkeys(split.groups.values())
    whole = split.label_sources is None and list(groups) != ["all"]
    for group in [*groups, "all"] if whole else groups:
        for metric in range(len(METRICS)):
            if METRICS[metric].averaged:
                yield _macro_row(split, arm, other, group, metric, counts, excluded)


class Estimate(NamedTuple):
    """A figure of one arm: per repeat the value and its draws."""

    values: Float[np.ndarray, "repeats"]
    draws: Float[np.ndarray, "repeats draws"]


def interval_columns(metric: Metric, estimates: Sequence[Estimate], n_fewer: int, nearest: float) -> dict[str, float]:
    """Columns of a model's figure or, given two, of their difference."""
    first = estimates[0]
    if len(first.values) > 1:
        second = estimates[1] if len(estimates) == 2 else Estimate(np.zeros_like(first.values), np.zeros((1, 1)))
        values = first.values - second.values
        interval = seed_interval(values, first.draws - second.draws, n_fewer)
        lowest, highest = (-1.0 if len(estimates) == 2 else 0.0, 1.0) if metric.scale == "share" else (-np.inf, np.inf)
        within = replace(interval, low=max(interval.low, lowest), high=min(interval.high, highest))
        return estimate_columns(values.mean(), within)
    drawn = [(float(e.values[0]), e.draws[0]) for e in estimates]
    if len(drawn) == 1:
        interval = corrected_interval(*drawn[0], n_fewer, scale=metric.scale, nearest=nearest)
        return estimate_columns(drawn[0][0], interval)
    interval = difference_interval(drawn[0], drawn[1], n_fewer, scale=metric.scale, nearest=nearest)
    return estimate_columns(drawn[0][0] - drawn[1][0], interval)


def _label_row(
    split: TestSplit,
    arm: Measured,
    other: Measured | None,
    label: int,
    index: int,
    counts: ClassCounts,
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    concept, metric = split.labels.concepts[label], METRICS[index]
    estimates = [Estimate(m.value[:, label, index], m.draws[:, label, index]) for m in (arm, other) if m]
    reason = excluded.get(concept)
    if reason is None and not all(np.isfinite(e.values).all() for e in estimates):
        reason = Exclusion.SCORES_NOT_FINITE
    chance = counts.prevalence if math.isnan(metric.chance) else metric.chance
    columns = _identity(split, arm, other) | label_columns(split, label, counts)
    columns |= {
        "metric": metric.name,
        "chance": math.nan if other else chance,
        "excluded": str(reason) if reason else "",
        "note": arm.scored.notes.get(concept, ""),
    }
    estimate = NO_ESTIMATE if reason else interval_columns(metric, estimates, counts.n_fewer, counts.nearest)
    return ResultRow(**columns | estimate)


def _identity(split: TestSplit, arm: Measured, other: Measured | None) -> dict[str, Any]:
    own = arm.scored
    columns = row_identity(
        split, own.arm, other.scored.arm if other else None, own.protocol, own.fraction, arm.n_repeats
    )
    if own.wording is not None:
        columns |= {"prompt_set": own.wording.name, "prompts_fingerprint": own.wording.fingerprint}
    return columns


def macro_estimate(arm: Measured, kept: Sequence[int], index: int) -> tuple[Estimate, float]:
    """Mean over the chosen labels of a figure, and the share of draws in which a label of them was undefined."""
    drawn = [macro_draws(draws[kept, index]) for draws in arm.draws]
    values = arm.value[:, kept, index].mean(axis=1)
    return Estimate(values, np.stack([mean for mean, _ in drawn])), max(share for _, share in drawn)


def _macro_row(
    split: TestSplit,
    arm: Measured,
    other: Measured | None,
    group: str,
    index: int,
    counts: Sequence[ClassCounts],
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    """A mean over labels that the data alone decide: a model with undefined scores has none, not a shorter one."""
    concepts, metric = split.labels.concepts, METRICS[index]
    members = [i for i, c in enumerate(concepts) if group in ("all", split.groups[c])]
    kept = [i for i in members if concepts[i] not in excluded]
    models = [m for m in (arm, other) if m]
    reason = ""
    if len(kept) < split.macro_min_labels:
        reason = str(Exclusion.FEW_LABELS)
    elif not all(np.isfinite(m.value[:, kept, index]).all() for m in models):
        reason = str(Exclusion.SCORES_NOT_FINITE)
    estimate = dict(NO_ESTIMATE)
    if not reason:
        means = [macro_estimate(m, kept, index) for m in models]
        n_fewer = int(np.median([counts[i].n_fewer for i in kept]))
        nearest = float(np.median([counts[i].nearest for i in kept]))
        incomplete = max(share for _, share in means)
        interval = interval_columns(metric, [mean for mean, _ in means], n_fewer, nearest)
        estimate = interval | {"discarded_draws": incomplete}
    columns = _identity(split, arm, other) | macro_columns(split, group, kept, counts, excluded)
    columns |= {
        "metric": metric.name,
        "chance": math.nan if other else columns["prevalence"] if math.isnan(metric.chance) else metric.chance,
        "excluded": reason,
    }
    return ResultRow(**columns | estimate)
