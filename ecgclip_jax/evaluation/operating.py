"""Thresholds and temperature fitted on validation, stored with the model, and what they do on a test split.

Only logits have them, a linear probe's or a fine-tuned model's: zero-shot similarities are no probabilities. The
threshold of each label is the one of largest sensitivity + specificity - 1 (Youden; ours: it needs no target). One
temperature serves all labels of a model, because a label of few validation positives cannot choose its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, write_json
from ecgclip_jax.evaluation.row_columns import (
    NO_ESTIMATE,
    estimate_columns,
    label_columns,
    macro_columns,
    row_identity,
)
from ecgclip_jax.evaluation.scored import ClassCounts, Scored, TestSplit, class_counts
from ecgclip_jax.evaluation.tasks import exclusions
from ecgclip_jax.metrics import calibration
from ecgclip_jax.metrics.intervals import Scale, corrected_interval
from ecgclip_jax.metrics.resampling import bootstrap_sums, macro_draws
from ecgclip_jax.metrics.thresholds import AtThreshold, Rule, at_threshold, fit_threshold, threshold_sums

PROTOCOL: Final = "linear_probe"
RULE: Final[Rule] = "youden"
FILE: Final = "operating_points.json"
SCALES: Final[Mapping[str, Scale]] = {
    "sensitivity": "share",
    "specificity": "share",
    "ppv": "share",
    "alerts_per_1000": "positive",
    "brier": "share",
    "expected_calibration_error": "share",
    "calibration_slope": "any",
    "calibration_intercept": "any",
}
"""Figures of a label at its threshold and of its calibrated probabilities, and the scales of their intervals."""


@dataclass(frozen=True)
class OperatingPoints:
    """Of one model; labels that validation could not define have no threshold."""

    temperature: float
    thresholds: Mapping[str, float]
    """Per concept, on logits before the temperature."""


def fit_operating_points(
    validation: Sequence[tuple[Labels, Sequence[Scored]]],
    rule: Rule = RULE,
    target: float = 0.9,
    weight: Float[np.ndarray, "records"] | None = None,
) -> dict[str, OperatingPoints]:
    """Points of every arm from its scores on the validation splits; never sees a test split.

    `rule` and its `target` are those of `fit_threshold`; `weight` are sampling weights of all splits, one after the
    other.
    """
    if not validation:
        return {}
    concepts = validation[0][0].concepts
    positive, known = (
        np.concatenate([getattr(labels, part) for labels, _ in validation]) for part in ("positive", "known")
    )
    points = {}
    for index, first in enumerate(validation[0][1]):
        scores = np.concatenate([scored[index].scores for _, scored in validation]).astype(np.float64)
        usable = known & np.isfinite(scores)
        thresholds = {
            concept: fit_threshold(
                positive[rows, label], scores[rows, label], rule, target, None if weight is None else weight[rows]
            )
            for label, (concept, rows) in enumerate(zip(concepts, usable.T, strict=True))
        }
        defined = {concept: t for concept, t in thresholds.items() if math.isfinite(t)}
        points[first.arm.name] = OperatingPoints(calibration.fit_temperature(scores, positive, usable, weight), defined)
    return points


def save_operating_points(
    points: Mapping[str, OperatingPoints], folder: Path, name: str = FILE, facts: Mapping[str, object] | None = None
) -> Path:
    """Write `operating_points.json`: the rule, per model the temperature, and per concept the threshold.

    `facts` stand beside them, and tell another rule.
    """
    content = {
        "rule": RULE,
        **(facts or {}),
        "models": {
            name: {
                "temperature": p.temperature if math.isfinite(p.temperature) else None,
                "thresholds": dict(p.thresholds),
            }
            for name, p in points.items()
        },
    }
    return write_json(folder / name, content)


def operating_rows(
    split: TestSplit,
    scored: Sequence[Scored],
    points: Mapping[str, OperatingPoints],
    protocol: str = PROTOCOL,
    *,
    macro: bool = False,
) -> list[ResultRow]:
    """Rows per label of every arm that has points: what its threshold does, and how true its probabilities are.

    Args:
        split: what is scored against; with sampling weights every figure is weighted back to the source.
        scored: of which those of `protocol` count, each arm once.
        points: by name of the arm.
        protocol: whose logits the points were fitted on.
        macro: also means over the labels of each group.
    """
    counts, rows = class_counts(split), list[ResultRow]()
    for own in scored:
        if own.protocol != protocol or own.arm.name not in points:
            continue
        chosen, excluded = points[own.arm.name], dict(own.excluded) | exclusions(split.labels, split.min_positives)
        for concept in split.labels.concepts:
            if concept not in chosen.thresholds:
                excluded.setdefault(concept, Exclusion.ONE_CLASS_IN_VALIDATION)
        labels = [_Label(split, own, i, chosen) for i, c in enumerate(split.labels.concepts) if c not in excluded]
        sums = bootstrap_sums(
            [label.terms for label in labels],
            split.patient,
            split.n_patients,
            replicates=split.replicates,
            seed=split.seed,
        )
        measured = {label.index: label.figures(drawn) for label, drawn in zip(labels, sums, strict=True)}
        for index, concept in enumerate(split.labels.concepts):
            rows += _rows(split, own, index, counts[index], measured.get(index, {}), excluded.get(concept), chosen)
        if macro:
            rows += _macro_rows(split, own, counts, measured, excluded)
    return rows


_Figures = Mapping[str, tuple[float, Float[np.ndarray, "draws"]]]


def _rows(
    split: TestSplit,
    own: Scored,
    label: int,
    counts: ClassCounts,
    figures: _Figures,
    reason: Exclusion | None,
    chosen: OperatingPoints,
) -> Iterator[ResultRow]:
    concept = split.labels.concepts[label]
    note = ""
    if reason is None:
        note = f"{RULE} threshold {chosen.thresholds[concept]:.4g} on logits, temperature {chosen.temperature:.3g}"
    columns = row_identity(split, own.arm, None, own.protocol) | label_columns(split, label, counts) | {"note": note}
    for metric, scale in SCALES.items():
        estimate, excluded = dict(NO_ESTIMATE), reason
        if reason is None:
            value, draws = figures[metric]
            if math.isfinite(value):
                interval = corrected_interval(value, draws, counts.n_fewer, scale=scale, nearest=counts.nearest)
                estimate = estimate_columns(value, interval)
            else:
                excluded = Exclusion.NOT_DEFINED
        chance = counts.prevalence if metric == "ppv" else math.nan
        yield ResultRow(
            **columns | estimate | {"metric": metric, "chance": chance, "excluded": str(excluded) if excluded else ""}
        )


def _macro_rows(
    split: TestSplit,
    own: Scored,
    counts: Sequence[ClassCounts],
    figures: Mapping[int, _Figures],
    excluded: Mapping[str, Exclusion],
) -> Iterator[ResultRow]:
    """Means over the labels of each group; of each figure over those for which the data define it."""
    concepts = split.labels.concepts
    for group in dict.fromkeys(split.groups.values()):
        members = [i for i, concept in enumerate(concepts) if split.groups[concept] == group]
        for metric, scale in SCALES.items():
            undefined = {
                concepts[i]: Exclusion.NOT_DEFINED
                for i in members
                if i in figures and not math.isfinite(figures[i][metric][0])
            }
            gone = undefined | dict(excluded)
            kept = [i for i in members if concepts[i] not in gone]
            columns = row_identity(split, own.arm, None, own.protocol) | macro_columns(split, group, kept, counts, gone)
            estimate, reason = dict(NO_ESTIMATE), str(Exclusion.FEW_LABELS)
            if len(kept) >= split.macro_min_labels:
                draws, incomplete = macro_draws(np.stack([figures[i][metric][1] for i in kept]))
                value = float(np.mean([figures[i][metric][0] for i in kept]))
                n_fewer = int(np.median([counts[i].n_fewer for i in kept]))
                nearest = float(np.median([counts[i].nearest for i in kept]))
                interval = corrected_interval(value, draws, n_fewer, scale=scale, nearest=nearest)
                estimate, reason = estimate_columns(value, interval) | {"discarded_draws": incomplete}, ""
            yield ResultRow(**columns | estimate | {"metric": metric, "excluded": reason})


class _Label:
    """One label's known records under one arm: terms of sums over all records, and figures of the sums."""

    def __init__(self, split: TestSplit, own: Scored, index: int, chosen: OperatingPoints) -> None:
        self.index = index
        self.rows: Bool[np.ndarray, "records"] = split.labels.known[:, index]
        self.positive = split.labels.positive[self.rows, index]
        self.score = own.scores[self.rows, index].astype(np.float64)
        self.logit = self.score / chosen.temperature
        self.threshold = chosen.thresholds[split.labels.concepts[index]]
        self.weight = None if split.sampling is None else split.sampling[self.rows]
        self.edges = calibration.equal_mass_edges(expit(self.logit))
        self.fit = calibration.fit_recalibration(self.logit, self.positive, self.weight)
        self.intercept = calibration.calibration_intercept(self.logit, self.positive, self.weight)

    def terms(self) -> Float[np.ndarray, "terms records"]:
        """What each record adds to the sums; unknown labels add nothing."""
        probability = expit(self.logit)
        known = np.concatenate(
            [
                threshold_sums(self.positive, self.score, self.threshold, weight=self.weight),
                calibration.brier_terms(probability, self.positive, self.weight),
                calibration.newton_terms(self.logit, self.positive, self.fit, self.intercept, self.weight),
                calibration.bin_terms(probability, self.positive, self.edges, self.weight),
            ]
        )
        terms = np.zeros((len(known), len(self.rows)))
        terms[:, self.rows] = known
        return terms

    def figures(self, draws: Float[np.ndarray, "terms draws"]) -> _Figures:
        """Each figure of `SCALES`: its value on all records and under the draws."""
        sums = np.concatenate([self.terms().sum(axis=1, keepdims=True), draws], axis=1)
        called, (errors, weights), newton, bins = np.split(sums, [4, 6, 13])
        # The sums over all records are a draw, too: there the step is none, and the fits themselves come out.
        slopes, intercepts = calibration.newton_draws(self.fit.slope, self.intercept, newton)
        with np.errstate(invalid="ignore"):
            named = dict(zip(AtThreshold._fields, at_threshold(called), strict=True)) | {
                "brier": errors / weights,
                "expected_calibration_error": calibration.calibration_error(bins),
                "calibration_slope": slopes,
                "calibration_intercept": intercepts,
            }
        return {metric: (float(values[0]), values[1:]) for metric, values in named.items()}
