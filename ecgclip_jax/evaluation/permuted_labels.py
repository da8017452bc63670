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
