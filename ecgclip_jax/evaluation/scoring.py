"""From scores to rows: every model, protocol and label of one test split under the same patient draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.protocols.retrieval import RECALL_AT, Ranks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, reasons
from ecgclip_jax.evaluation.tasks import exclusions
from ecgclip_jax.metrics.intervals import (
    Interval,
    Scale,
    corrected_interval,
    difference_interval,
    percentile_interval,
)
from ecgclip_jax.metrics.operating_points import sensitivity_at
from ecgclip_jax.metrics.ranking import SortedColumn, weighted_metrics
from ecgclip_jax.metrics.resampling import (
    bootstrap_means,
    bootstrap_medians,
    bootstrap_ranking,
    macro_draws,
    sort_columns,
)

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
class Arm:
    """A model as the table names it."""

    name: str
    fingerprint: str
    seed: int | None = None


@dataclass(frozen=True)
class Scored:
    """One arm under one protocol: a score per record and label, and why some labels have none."""

    arm: Arm
    protocol: str
    scores: Float[np.ndarray, "records labels"]
    excluded: Mapping[str, Exclusion] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TestSplit:
    """What is scored against, and what every row of it repeats."""

    __test__ = False  # a test split is no pytest class
    labels: Labels
    groups: Mapping[str, str]
    patient: Int[np.ndarray, "records"]
    common: Mapping[str, Any]
    """Columns that are the same in every row (cohort, fingerprints, access …)."""
    min_positives: int
    macro_min_labels: int
    replicates: int
    seed: int
    sampling: Float[np.ndarray, "records"] | None = None
    """Sampling weights of a case-enriched sample: how many records of its source each stands for."""

    @property
    def n_patients(self) -> int:
        """Patients, a record without an id counting as one."""
        return int(self.patient.max()) + 1


@dataclass(frozen=True)
class _Measured:
    """One scored arm with its values `[labels, metrics]` and draws `[labels, metrics, draws]`."""

    scored: Scored
    value: Float[np.ndarray, "labels metrics"]
    draws: Float[np.ndarray, "labels metrics draws"]
    finite: bool


def ranking_rows(split: TestSplit, scored: Sequence[Scored]) -> list[ResultRow]:
    """Rows per label and macro mean of every arm and protocol, and of every arm's difference from the first arm."""
    measured, counts = _measure(split, scored), class_counts(split)
    rows: list[ResultRow] = []
    for protocol in dict.fromkeys(s.protocol for s in scored):
        own = [m for m in measured if m.scored.protocol == protocol]
        excluded: dict[str, Exclusion] = {}
        for m in own:  # one label list for all arms, or their means would not be comparable
            excluded |= m.scored.excluded
        excluded |= exclusions(split.labels, split.min_positives)
        for m in own:
            rows += _arm_rows(split, m, None, counts, excluded)
        for m in own[1:]:
            rows += _arm_rows(split, own[0], m, counts, excluded)
    return rows


def _measure(split: TestSplit, scored: Sequence[Scored]) -> list[_Measured]:
    labels, unscorable = split.labels, exclusions(split.labels, 1)
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
    return [
        _Measured(s, value[i], draws[i], bool(np.isfinite(s.scores[labels.known]).all())) for i, s in enumerate(scored)
    ]


def _arm_rows(
    split: TestSplit,
    arm: _Measured,
    other: _Measured | None,
    counts: Sequence[ClassCounts],
    excluded: Mapping[str, Exclusion],
) -> Iterator[ResultRow]:
    for label in range(len(split.labels.concepts)):
        for metric in range(len(METRICS)):
            yield _label_row(split, arm, other, label, metric, counts[label], excluded)
    groups = dict.fromkeys(split.groups.values())
    for group in [*groups, "all"] if list(groups) != ["all"] else groups:
        for metric in range(len(METRICS)):
            if METRICS[metric].averaged:
                yield _macro_row(split, arm, other, group, metric, counts, excluded)


class ClassCounts(NamedTuple):
    """One label's known records."""

    n: int
    n_positives: int
    n_patients: int
    n_fewer: int
    """Patients of the rarer class: those with a positive record or those with a negative one."""
    prevalence: float
    """Weighted back to the source if the sample has weights."""

    @property
    def nearest(self) -> float:
        """Half a pair of a positive and a negative record, as a share of all pairs."""
        return 0.5 / max(self.n_positives * (self.n - self.n_positives), 1)


def class_counts(split: TestSplit) -> list[ClassCounts]:
    """Counts of every label."""
    weight = np.ones(len(split.patient)) if split.sampling is None else split.sampling
    found = []
    for known, positive in zip(split.labels.known.T, (split.labels.positive & split.labels.known).T, strict=True):
        patients, sick, well = (len(np.unique(split.patient[rows])) for rows in (known, positive, known & ~positive))
        n, total = int(known.sum()), float(weight[known].sum())
        prevalence = float(weight[positive].sum()) / total if total else math.nan
        found.append(ClassCounts(n, int(positive.sum()), patients, min(sick, well), prevalence))
    return found


def row_identity(split: TestSplit, arm: Arm, other: Arm | None, protocol: str) -> dict[str, Any]:
    """The columns that say whose row it is; the others are empty."""
    return dict(split.common) | {
        "model": arm.name,
        "compared_with": other.name if other else "",
        "model_seed": arm.seed,
        "model_fingerprint": arm.fingerprint,
        "protocol": protocol,
        "replicates": split.replicates,
        "bootstrap_seed": split.seed,
        "prevalence": math.nan,
        "chance": math.nan,
        "n_positives": None,
        "n_labels": None,
        "excluded": "",
        "excluded_labels": "",
        "note": "",
        "label_group": "",
        "label_source": "",
        "prompts_fingerprint": split.common["prompts_fingerprint"] if protocol == "zero_shot" else "",
        "language": split.common["language"] if protocol == "zero_shot" else "",
    }


def estimate_columns(value: float, interval: Interval) -> dict[str, float]:
    """A value with its interval as columns."""
    return {
        "value": float(value),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "discarded_draws": interval.discarded,
    }


NO_ESTIMATE = {"value": math.nan, "ci_low": math.nan, "ci_high": math.nan, "discarded_draws": math.nan}


def _interval(
    metric: Metric, estimates: Sequence[tuple[float, Float[np.ndarray, "draws"]]], n_fewer: int, nearest: float
) -> dict[str, float]:
    """Columns of a model's figure or, given two (value, draws), of their difference."""
    if len(estimates) == 1:
        value, draws = estimates[0]
        interval = corrected_interval(value, draws, n_fewer, scale=metric.scale, nearest=nearest)
        return estimate_columns(value, interval)
    interval = difference_interval(estimates[0], estimates[1], n_fewer, scale=metric.scale, nearest=nearest)
    return estimate_columns(estimates[0][0] - estimates[1][0], interval)


def label_columns(split: TestSplit, label: int, counts: ClassCounts) -> dict[str, Any]:
    """The columns that say which label and how many records."""
    concept = split.labels.concepts[label]
    return {
        "label": concept,
        "label_group": split.groups[concept],
        "label_source": split.common["label_source"],
        "n": counts.n,
        "n_positives": counts.n_positives,
        "n_patients": counts.n_patients,
        "prevalence": counts.prevalence,
    }


def _label_row(
    split: TestSplit,
    arm: _Measured,
    other: _Measured | None,
    label: int,
    index: int,
    counts: ClassCounts,
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    concept, metric = split.labels.concepts[label], METRICS[index]
    estimates = [(float(m.value[label, index]), m.draws[label, index]) for m in (arm, other) if m]
    reason = excluded.get(concept)
    if reason is None and not all(math.isfinite(value) for value, _ in estimates):
        reason = Exclusion.SCORES_NOT_FINITE
    chance = counts.prevalence if math.isnan(metric.chance) else metric.chance
    columns = row_identity(split, arm.scored.arm, other.scored.arm if other else None, arm.scored.protocol)
    columns |= label_columns(split, label, counts) | {
        "metric": metric.name,
        "chance": math.nan if other else chance,
        "excluded": str(reason) if reason else "",
        "note": arm.scored.notes.get(concept, ""),
    }
    estimate = NO_ESTIMATE if reason else _interval(metric, estimates, counts.n_fewer, counts.nearest)
    return ResultRow(**columns | estimate)


def _macro_row(
    split: TestSplit,
    arm: _Measured,
    other: _Measured | None,
    group: str,
    index: int,
    counts: Sequence[ClassCounts],
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    """A mean over labels that the data alone decide: a model with undefined scores has none, not a shorter one."""
    concepts, metric = split.labels.concepts, METRICS[index]
    members = [i for i, c in enumerate(concepts) if group in ("all", split.groups[c])]
    kept = [i for i in members if concepts[i] not in excluded]
    known = split.labels.known.any(axis=1)
    models = [m for m in (arm, other) if m]
    reason = ""
    if len(kept) < split.macro_min_labels:
        reason = str(Exclusion.FEW_LABELS)
    elif not all(np.isfinite(m.value[kept, index]).all() for m in models):
        reason = str(Exclusion.SCORES_NOT_FINITE)
    estimate = dict(NO_ESTIMATE)
    if not reason:
        means = [macro_draws(m.draws[kept, index]) for m in models]
        values = [float(m.value[kept, index].mean()) for m in models]
        n_fewer = int(np.median([counts[i].n_fewer for i in kept]))
        nearest = float(np.median([counts[i].nearest for i in kept]))
        drawn = [(value, mean) for value, (mean, _) in zip(values, means, strict=True)]
        incomplete = max(share for _, share in means)
        estimate = _interval(metric, drawn, n_fewer, nearest) | {"discarded_draws": incomplete}
    prevalence = float(np.mean([counts[i].prevalence for i in kept])) if kept else math.nan
    columns = row_identity(split, arm.scored.arm, other.scored.arm if other else None, arm.scored.protocol) | {
        "label": "macro",
        "label_group": group,
        "label_source": split.common["label_source"],
        "metric": metric.name,
        "n": int(known.sum()),
        "n_patients": len(np.unique(split.patient[known])),
        "n_labels": len(kept),
        "prevalence": prevalence,
        "chance": math.nan if other else prevalence if math.isnan(metric.chance) else metric.chance,
        "excluded": reason,
        "excluded_labels": reasons((concepts[i], str(excluded[concepts[i]])) for i in members if i not in kept),
    }
    return ResultRow(**columns | estimate)


def retrieval_rows(
    split: TestSplit,
    ranks: Sequence[tuple[Arm, Mapping[str, Ranks]]],
    patient: Int[np.ndarray, "queries"],
    note: str,
) -> list[ResultRow]:
    """Recall@k and median rank per direction and arm, and the recalls' differences from the first arm.

    `patient` is 0 … n-1 over the records that have a report: the queries.
    """
    rows: list[ResultRow] = []
    for direction in ranks[0][1]:
        draws, shares = [], []
        for arm, found in ranks:
            own = found[direction]
            hits = np.stack([np.where(np.isfinite(own.rank), own.recall(k), np.nan) for k in RECALL_AT])
            sampled = bootstrap_means(hits, patient, replicates=split.replicates, seed=split.seed)
            draws.append(sampled)
            shares.append(hits.mean(axis=1))
            medians = bootstrap_medians(own.rank, patient, replicates=split.replicates, seed=split.seed)
            middle = float(np.sort(own.rank)[(len(own.rank) - 1) // 2])
            for i, k in enumerate(RECALL_AT):
                chance = own.chance_recall(k)
                rows.append(
                    _retrieval_row(split, arm, None, direction, f"recall@{k}", shares[-1][i], sampled[i], chance)
                )
            rows.append(
                _retrieval_row(split, arm, None, direction, "median_rank", middle, medians, own.chance_median_rank())
            )
        for (other, _), other_draws, other_share in zip(ranks[1:], draws[1:], shares[1:], strict=True):
            for i, k in enumerate(RECALL_AT):
                difference = shares[0][i] - other_share[i], draws[0][i] - other_draws[i]
                rows.append(_retrieval_row(split, ranks[0][0], other, direction, f"recall@{k}", *difference, math.nan))
    counts = {"n": len(patient), "n_patients": int(patient.max()) + 1, "note": note}
    return [ResultRow(**vars(row) | counts) for row in rows]


def _retrieval_row(
    split: TestSplit,
    arm: Arm,
    other: Arm | None,
    direction: str,
    metric: str,
    value: float,
    draws: Float[np.ndarray, "draws"],
    chance: float,
) -> ResultRow:
    columns = row_identity(split, arm, other, "retrieval") | {"label": direction, "metric": metric, "chance": chance}
    counts = {"n": 0, "n_patients": 0}
    if not math.isfinite(value):
        return ResultRow(**columns | counts | NO_ESTIMATE | {"excluded": str(Exclusion.SCORES_NOT_FINITE)})
    return ResultRow(**columns | counts | estimate_columns(value, percentile_interval(draws)))
