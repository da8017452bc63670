"""k nearest neighbours on frozen features: what lies together, without anything being fitted.

A label's score is the share of positives among a record's k most similar training records that know the label, each
weighted by exp(cosine / 0.07): the recipe of Wu et al. (CVPR 2018), for many labels at once. Ours are the features
centred by their training mean (a mean over time after a ReLU points one way for all ECGs), the masks and the grid of k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData
from ecgclip_jax.evaluation.protocols.zero_shot import normalise
from ecgclip_jax.metrics.ranking import average_precision
from ecgclip_jax.spec.errors import UserError

NEIGHBOURS = (5, 20, 100)
"""The k that validation chooses from."""
TEMPERATURE = 0.07
ROWS_AT_A_TIME = 512


class NeighboursError(UserError):
    """Training or validation labels that no neighbour can tell anything about."""


@dataclass(frozen=True)
class NearestNeighbours:
    """Training records by direction, and the k that validation chose for all labels."""

    mean: Float[np.ndarray, "width"]
    direction: Float[np.ndarray, "records width"]
    positive: Bool[np.ndarray, "records labels"]
    known: Bool[np.ndarray, "records labels"]
    fitted: Bool[np.ndarray, "labels"]
    """Labels with both classes in training."""
    k: int
    validation_precision: dict[int, float]
    """Macro average precision per k of the grid."""

    def scores(self, features: Float[np.ndarray, "queries width"]) -> Float[np.ndarray, "queries labels"]:
        """Shares between 0 and 1, float32; NaN for labels without both classes in training."""
        training = self.direction, self.positive, self.known, self.fitted
        shares: np.ndarray = _shares(_directions(features, self.mean), *training, (self.k,))[0]
        return shares


def fit_neighbours(train: ProbeData, validation: ProbeData, grid: tuple[int, ...] = NEIGHBOURS) -> NearestNeighbours:
    """Keep the training records, and the first k of the highest macro average precision on `validation`.

    Raises:
        NeighboursError: no label has both classes in training and in validation.
    """
    fitted, chosen_by = train.both_classes, train.both_classes & validation.both_classes
    if not chosen_by.any():
        raise NeighboursError(
            f"nearest neighbours: expected labels with positives and negatives in training and in validation, found "
            f"none of {len(fitted)}, so no k can be chosen; give more records, or other labels"
        )
    mean = train.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    direction = _directions(train.features, mean)
    training = direction, train.positive, train.known, fitted
    shares = _shares(_directions(validation.features, mean), *training, grid)
    precision = {k: _macro_precision(of_k, validation, chosen_by) for k, of_k in zip(grid, shares, strict=True)}
    best = max(grid, key=lambda k: precision[k])
    return NearestNeighbours(mean, *training, best, precision)


def _directions(
    features: Float[np.ndarray, "records width"], mean: Float[np.ndarray, "width"]
) -> Float[np.ndarray, "records width"]:
    return normalise(features.astype(np.float32) - mean)


def _shares(
    queries: Float[np.ndarray, "queries width"],
    direction: Float[np.ndarray, "records width"],
    positive: Bool[np.ndarray, "records labels"],
    known: Bool[np.ndarray, "records labels"],
    fitted: Bool[np.ndarray, "labels"],
    grid: tuple[int, ...],
) -> Float[np.ndarray, "ks queries labels"]:
    """Weighted share of positives among the nearest known records, for every k (all of them, where k is more)."""
    found = np.full((len(grid), len(queries), len(fitted)), np.nan, np.float32)
    for labels, rows in _equally_known(known, fitted):
        counts = [min(k, len(rows)) for k in grid]
        for start in range(0, len(queries), ROWS_AT_A_TIME):
            part = slice(start, start + ROWS_AT_A_TIME)
            similarity = queries[part] @ direction[rows].T
            nearest = np.argpartition(-similarity, max(counts) - 1, axis=1)[:, : max(counts)]
            closeness = np.take_along_axis(similarity, nearest, axis=1)
            order = np.argsort(-closeness, axis=1, kind="stable")
            nearest, closeness = (np.take_along_axis(values, order, axis=1) for values in (nearest, closeness))
            weight = np.exp((closeness - closeness[:, :1]) / TEMPERATURE)
            hits = np.cumsum(weight[:, :, None] * positive[rows[nearest][:, :, None], labels], axis=1)
            total = np.cumsum(weight, axis=1)
            for number, count in enumerate(counts):
                found[number, part, labels] = (hits[:, count - 1] / total[:, count - 1, None]).T
    return found


def _equally_known(
    known: Bool[np.ndarray, "records labels"], fitted: Bool[np.ndarray, "labels"]
) -> Iterator[tuple[Int[np.ndarray, "group"], Int[np.ndarray, "known"]]]:
    """Labels that the same records know, with those records: they have their neighbours in common."""
    chosen = np.flatnonzero(fitted)
    patterns, group = np.unique(known[:, chosen], axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        yield chosen[group == number], np.flatnonzero(patterns[:, number])


def _macro_precision(
    scores: Float[np.ndarray, "records labels"], data: ProbeData, labels: Bool[np.ndarray, "labels"]
) -> float:
    known = data.known
    each = [
        average_precision(data.positive[known[:, i], i], scores[known[:, i], i].astype(np.float64))
        for i in np.flatnonzero(labels)
    ]
    return float(np.mean(each))
