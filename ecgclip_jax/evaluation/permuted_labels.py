"""A guard: were label columns permuted between training and test?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from ecgclip_jax.data.labels import Labels

PERMUTATION_MIN_POSITIVES, PERMUTATION_MARGIN, PERMUTATION_MIN_AUROC = 20, 0.1, 0.7
"""Guard against false alarms (ours): enough positives, a clear gain, and a re-assignment that really fits."""


def permuted_labels(labels: Labels, scores: Float[np.ndarray, "records labels"]) -> dict[str, str]:
    """Labels whose scores fit another label, if some re-assignment of all labels fits much better than the given one.

    Catches label columns that were permuted between training and test: with honest labels the diagonal of the AUROC
    matrix (score i against label j, over the records that know j) is close to the best assignment.
    """
    usable = np.flatnonzero([_enough(labels, label) for label in range(len(labels.concepts))])
    usable = usable[np.isfinite(scores[:, usable]).all(axis=0)]
    if len(usable) < 2:
        return {}
    area = np.stack([_auroc(scores[:, usable], labels, int(label)) for label in usable], axis=1)
    score_index, label_index = linear_sum_assignment(-area)
    best = area[score_index, label_index].mean()
    if best < PERMUTATION_MIN_AUROC or best - np.diag(area).mean() < PERMUTATION_MARGIN:
        return {}
    names = [labels.concepts[label] for label in usable]
    return {names[i]: names[j] for i, j in zip(score_index, label_index, strict=True) if i != j}


def _enough(labels: Labels, label: int) -> bool:
    positive = labels.positive[labels.known[:, label], label]
    return bool(min(positive.sum(), (~positive).sum()) >= PERMUTATION_MIN_POSITIVES)


def _auroc(scores: Float[np.ndarray, "records columns"], labels: Labels, label: int) -> Float[np.ndarray, "columns"]:
    """Of every score column against one label, by rank sums."""
    known = labels.known[:, label]
    positive = labels.positive[known, label]
    ranks = rankdata(scores[known], axis=0)
    n = int(positive.sum())
    area: np.ndarray = (ranks[positive].sum(axis=0) - n * (n + 1) / 2) / (n * (len(positive) - n))
    return area
