"""From scores to rows: every model, protocol and label of one test split under the same patient draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.protocols.retrieval import RECALL_AT, Ranks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, reasons
from ecgclip_jax.evaluation.tasks import exclusions
from ecgclip_jax.metrics.intervals import percentile_interval
from ecgclip_jax.metrics.ranking import weighted_metrics
from ecgclip_jax.metrics.resampling import (
    bootstrap_means,
    bootstrap_medians,
    bootstrap_ranking,
    macro_draws,
    sort_columns,
)

METRICS = ("auroc", "average_precision")


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
    measured = _measure(split, scored)
    rows: list[ResultRow] = []
    for protocol in dict.fromkeys(s.protocol for s in scored):
        own = [m for m in measured if m.scored.protocol == protocol]
        excluded: dict[str, Exclusion] = {}
        for m in own:  # one label list for all arms, or their means would not be comparable
            excluded |= m.scored.excluded
        excluded |= exclusions(split.labels, split.min_positives)
        for m in own:
            rows += _arm_rows(split, m, None, excluded)
        for m in own[1:]:
            rows += _arm_rows(split, own[0], m, excluded)
    return rows


def _measure(split: TestSplit, scored: Sequence[Scored]) -> list[_Measured]:
    labels, unscorable = split.labels, exclusions(split.labels, 1)
    kept = np.array([c not in unscorable for c in labels.concepts])
    columns, lanes = [], np.ones((split.n_patients, 1), np.uint8)
    for s in scored:
        columns += sort_columns(labels.positive[:, kept], labels.known[:, kept], s.scores[:, kept], split.patient)
    shape = (len(scored), len(kept), len(METRICS))
    value, draws = np.full(shape, np.nan), np.full((*shape, split.replicates), np.nan)
    if columns:
        points = np.array([weighted_metrics(column, lanes)[: len(METRICS), 0] for column in columns])
        value[:, kept] = points.reshape(len(scored), -1, len(METRICS))
        sampled = bootstrap_ranking(columns, split.n_patients, replicates=split.replicates, seed=split.seed)
        draws[:, kept] = sampled[:, : len(METRICS)].reshape(len(scored), -1, len(METRICS), split.replicates)
    return [
        _Measured(s, value[i], draws[i], bool(np.isfinite(s.scores[labels.known]).all())) for i, s in enumerate(scored)
    ]


def _arm_rows(
    split: TestSplit, arm: _Measured, other: _Measured | None, excluded: Mapping[str, Exclusion]
) -> Iterator[ResultRow]:
    value = arm.value if other is None else arm.value - other.value
    draws = arm.draws if other is None else arm.draws - other.draws
    for label in range(len(split.labels.concepts)):
        for metric in range(len(METRICS)):
            yield _label_row(split, arm, other, label, metric, value[label, metric], draws[label, metric], excluded)
    groups = dict.fromkeys(split.groups.values())
    for group in [*groups, "all"] if list(groups) != ["all"] else groups:
        for metric in range(len(METRICS)):
            yield _macro_row(split, arm, other, group, metric, value[:, metric], draws[:, metric], excluded)


def _identity(split: TestSplit, arm: Arm, other: Arm | None, protocol: str) -> dict[str, Any]:
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


def _estimate(value: float, draws: Float[np.ndarray, "draws"]) -> dict[str, float]:
    interval = percentile_interval(draws)
    return {
        "value": float(value),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "discarded_draws": interval.discarded,
    }


_NO_ESTIMATE = {"value": math.nan, "ci_low": math.nan, "ci_high": math.nan, "discarded_draws": math.nan}


def _label_row(
    split: TestSplit,
    arm: _Measured,
    other: _Measured | None,
    label: int,
    metric: int,
    value: float,
    draws: Float[np.ndarray, "draws"],
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    labels, concept = split.labels, split.labels.concepts[label]
    known = labels.known[:, label]
    n, n_positives = int(known.sum()), int((labels.positive[:, label] & known).sum())
    prevalence = n_positives / n if n else math.nan
    reason = excluded.get(concept)
    if reason is None and not math.isfinite(value):
        reason = Exclusion.SCORES_NOT_FINITE
    columns = _identity(split, arm.scored.arm, other.scored.arm if other else None, arm.scored.protocol) | {
        "label": concept,
        "label_group": split.groups[concept],
        "label_source": split.common["label_source"],
        "metric": METRICS[metric],
        "n": n,
        "n_positives": n_positives,
        "n_patients": len(np.unique(split.patient[known])),
        "prevalence": prevalence,
        "chance": math.nan if other else (0.5, prevalence)[metric],
        "excluded": str(reason) if reason else "",
        "note": arm.scored.notes.get(concept, ""),
    }
    return ResultRow(**columns | (_NO_ESTIMATE if reason else _estimate(value, draws)))


def _macro_row(
    split: TestSplit,
    arm: _Measured,
    other: _Measured | None,
    group: str,
    metric: int,
    value: Float[np.ndarray, "labels"],
    draws: Float[np.ndarray, "labels draws"],
    excluded: Mapping[str, Exclusion],
) -> ResultRow:
    """A mean over labels that the data alone decide: a model with undefined scores has none, not a shorter one."""
    concepts = split.labels.concepts
    members = [i for i, c in enumerate(concepts) if group in ("all", split.groups[c])]
    kept = [i for i in members if concepts[i] not in excluded]
    known = split.labels.known.any(axis=1)
    reason = ""
    if len(kept) < split.macro_min_labels:
        reason = str(Exclusion.FEW_LABELS)
    elif not np.isfinite(value[kept]).all():
        reason = str(Exclusion.SCORES_NOT_FINITE)
    estimate = dict(_NO_ESTIMATE)
    if not reason:
        mean, incomplete = macro_draws(draws[kept])
        estimate = _estimate(float(value[kept].mean()), mean) | {"discarded_draws": incomplete}
    positive, label_known = split.labels.positive[:, kept], split.labels.known[:, kept]
    prevalences = (positive & label_known).sum(axis=0) / np.maximum(label_known.sum(axis=0), 1)
    prevalence = float(prevalences.mean()) if kept else math.nan
    columns = _identity(split, arm.scored.arm, other.scored.arm if other else None, arm.scored.protocol) | {
        "label": "macro",
        "label_group": group,
        "label_source": split.common["label_source"],
        "metric": METRICS[metric],
        "n": int(known.sum()),
        "n_patients": len(np.unique(split.patient[known])),
        "n_labels": len(kept),
        "prevalence": prevalence,
        "chance": math.nan if other else (0.5, prevalence)[metric],
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
    columns = _identity(split, arm, other, "retrieval") | {"label": direction, "metric": metric, "chance": chance}
    counts = {"n": 0, "n_patients": 0}
    if not math.isfinite(value):
        return ResultRow(**columns | counts | _NO_ESTIMATE | {"excluded": str(Exclusion.SCORES_NOT_FINITE)})
    return ResultRow(**columns | counts | _estimate(value, draws))


PERMUTATION_MIN_POSITIVES, PERMUTATION_MARGIN, PERMUTATION_MIN_AUROC = 20, 0.1, 0.7
"""Guard against false alarms (ours): enough positives, a clear gain, and a re-assignment that really fits."""


def permuted_labels(labels: Labels, scores: Float[np.ndarray, "records labels"]) -> dict[str, str]:
    """Labels whose scores fit another label, if some re-assignment of all labels fits much better than the given one.

    Catches label columns that were permuted between training and test: with honest labels the diagonal of the AUROC
    matrix (score i against label j) is close to the best assignment. Only fully labelled records are looked at.
    """
    rows = labels.known.all(axis=1)
    everything = labels.positive[rows]
    fewer_class = np.minimum(everything.sum(axis=0), (~everything).sum(axis=0))
    usable = (fewer_class >= PERMUTATION_MIN_POSITIVES) & np.isfinite(scores).all(axis=0)
    if usable.sum() < 2:
        return {}
    positive = everything[:, usable].astype(np.float64)
    n_positives = positive.sum(axis=0)
    ranks = rankdata(scores[rows][:, usable], axis=0)
    area = (ranks.T @ positive - n_positives * (n_positives + 1) / 2) / (n_positives * (len(positive) - n_positives))
    score_index, label_index = linear_sum_assignment(-area)
    best = area[score_index, label_index].mean()
    if best < PERMUTATION_MIN_AUROC or best - np.diag(area).mean() < PERMUTATION_MARGIN:
        return {}
    names = [c for c, u in zip(labels.concepts, usable, strict=True) if u]
    return {names[i]: names[j] for i, j in zip(score_index, label_index, strict=True) if i != j}
