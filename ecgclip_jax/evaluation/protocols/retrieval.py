"""ECG↔report retrieval: does an ECG find its own report among all, and a report its ECG?

Reports repeat (a third of PTB-XL's do), so an identical text is a hit. ECG→text ranks the distinct texts of the test
set; text→ECG ranks its ECGs and takes the best one with that text. Equal similarities share their mean rank, so a model
that answers the same to everything finds nothing. The pool stays fixed under the bootstrap: queries are resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.evaluation.protocols.zero_shot import normalise

RECALL_AT = (1, 5, 10)
ROWS_AT_A_TIME = 2048


@dataclass(frozen=True)
class Ranks:
    """Rank (1 = first) of the right answer per query, with what guessing would give."""

    rank: Float[np.ndarray, "queries"]
    n_candidates: int
    n_right: Int[np.ndarray, "queries"]
    """How many candidates are right answers to each query."""

    def recall(self, k: int) -> Float[np.ndarray, "queries"]:
        """1 where a right answer is among the first k."""
        return (self.rank <= k).astype(np.float64)

    def chance_recall(self, k: int) -> float:
        """Expected recall@k of a random order: 1 - C(n - h, k) / C(n, k), averaged over queries."""
        n, right = self.n_candidates, self.n_right.astype(np.float64)
        miss = np.ones(len(right))
        for i in range(min(k, n)):
            miss *= np.maximum(n - right - i, 0.0) / (n - i)
        return float(1.0 - miss.mean())

    def chance_median_rank(self) -> float:
        """Median over queries of the expected best rank (n + 1) / (h + 1) under a random order."""
        return float(np.median((self.n_candidates + 1) / (self.n_right + 1)))


def ecg_to_text(
    ecg: Float[np.ndarray, "records dim"],
    texts: Float[np.ndarray, "texts dim"],
    own_text: Int[np.ndarray, "records"],
) -> Ranks:
    """Rank of each ECG's own report among the distinct texts; `own_text` is its row in `texts`."""
    ecg, texts = normalise(ecg), normalise(texts)
    rank = np.empty(len(ecg))
    for start in range(0, len(ecg), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        similarity = ecg[rows] @ texts.T
        own = np.take_along_axis(similarity, own_text[rows, None], axis=1)
        rank[rows] = 1 + (similarity > own).sum(axis=1) + ((similarity == own).sum(axis=1) - 1) / 2
    return _checked(rank, ecg, texts, len(texts), np.ones(len(ecg), np.int64))


def text_to_ecg(
    ecg: Float[np.ndarray, "records dim"],
    texts: Float[np.ndarray, "texts dim"],
    own_text: Int[np.ndarray, "records"],
) -> Ranks:
    """For each record's report: the rank of the best ECG that has this very report, among all ECGs.

    One query per record, so that a text stands for as many patients as it was written about.
    """
    ecg, texts = normalise(ecg), normalise(texts)
    rank = np.empty(len(texts))
    for start in range(0, len(texts), ROWS_AT_A_TIME):
        similarity = texts[start : start + ROWS_AT_A_TIME] @ ecg.T
        right = own_text[None, :] == np.arange(start, start + len(similarity))[:, None]
        best = np.max(similarity, axis=1, where=right, initial=-np.inf)[:, None]
        tied_wrong = ((similarity == best) & ~right).sum(axis=1)
        tied_right = ((similarity == best) & right).sum(axis=1)
        # The first of h right answers among h + w equal ones stands, on average, after w / (h + 1) wrong ones.
        rank[start : start + len(similarity)] = 1 + (similarity > best).sum(axis=1) + tied_wrong / (tied_right + 1)
    return _checked(rank[own_text], ecg, texts, len(ecg), np.bincount(own_text, minlength=len(texts))[own_text])


def _checked(
    rank: Float[np.ndarray, "queries"],
    ecg: Float[np.ndarray, "records dim"],
    texts: Float[np.ndarray, "texts dim"],
    n_candidates: int,
    n_right: Int[np.ndarray, "queries"],
) -> Ranks:
    """NaN compares as 'not greater' and would look like a perfect rank: such a model has no rank at all."""
    if not (np.isfinite(ecg).all() and np.isfinite(texts).all()):
        rank = np.full_like(rank, np.nan)
    return Ranks(rank, n_candidates, n_right)
