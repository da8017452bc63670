"""What is scored: models as tables name them, their scores of a test split, and the split they are scored against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.results import Exclusion

ALL_LABELS = 1.0
"""Fraction of the training patients whose labels were used; zero-shot uses none."""


@dataclass(frozen=True)
class Arm:
    """A model as the table names it."""

    name: str
    fingerprint: str
    seed: int | None = None


class Wording(NamedTuple):
    """A prompt set as the table names it."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Scored:
    """One arm under one protocol: a score per record and label, and why some labels have none.

    What was fitted several times (draws of few labels, training seeds) comes as several of these with the same arm,
    protocol and fraction; the table says their mean.
    """

    arm: Arm
    protocol: str
    scores: Float[np.ndarray, "records labels"]
    excluded: Mapping[str, Exclusion] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    fraction: float = ALL_LABELS
    repeat: int = 0
    """Which draw of the labels, with its training seed; equal numbers are paired between arms."""
    wording: Wording | None = None
    """Of zero-shot: the prompts. Of several sets the headline one comes first."""


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
    label_sources: Mapping[str, str] | None = None
    """Per label, where sources differ: then macro means are per group only, never over all."""

    @property
    def n_patients(self) -> int:
        """Patients, a record without an id counting as one."""
        return int(self.patient.max()) + 1

    def label_source(self, label: str) -> str:
        """Where a label's truth comes from."""
        return str(self.common["label_source"]) if self.label_sources is None else self.label_sources[label]


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
