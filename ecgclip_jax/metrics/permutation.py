"""Paired permutation test: could two models' difference in AUROC or average precision come from chance alone?

Under the null hypothesis it does not matter which of the two gave a patient's scores. For each permutation a coin per
patient says whether the two swap all their scores of that patient, in all labels; p = (1 + permutations at least as far
from 0 as observed) / (1 + permutations), two-sided, as in ecg-fix (arXiv 2602.17531, released code, which swaps per
record). Swapped scores have to mean the same, so each model's scores of a label are first replaced by their ranks
(Venkatraman, Biometrics 2000;56:1134; ours also for average precision); `raw_scores` leaves them as they are.

Both models' scores of a label are sorted once together. A permutation is then a weighting of these rows, and all
permutations run as lanes of the kernel that serves the bootstrap.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.stats import rankdata

from ecgclip_jax.metrics.ranking import RANKING_METRICS, SortedColumn, sort_column, weighted_metrics
from ecgclip_jax.metrics.resampling import BLOCK


class PermutationTest(NamedTuple):
    """Differences (first - second) of `RANKING_METRICS`, as observed and permuted; NaN where undefined."""

    observed: Float[np.ndarray, "labels metrics"]
    permuted: Float[np.ndarray, "labels metrics permutations"]

    def p_values(self) -> Float[np.ndarray, "labels metrics"]:
        """Two-sided p per label and metric."""
        return two_sided_p(self.observed, self.permuted)

    def macro_p(self, labels: Int[np.ndarray, "chosen"]) -> Float[np.ndarray, "metrics"]:
        """Two-sided p of the difference of the means over the chosen labels."""
        return two_sided_p(self.observed[labels].mean(axis=0), self.permuted[labels].mean(axis=0))


def two_sided_p(
    observed: Float[np.ndarray, "*figures"], permuted: Float[np.ndarray, "*figures permutations"]
) -> Float[np.ndarray, "*figures"]:
    """(1 + number of permuted differences at least as far from 0) / (1 + permutations); NaN where one is undefined."""
    # The same difference comes out of other sums with other rounding; it must count as equal.
    extreme = np.abs(permuted) >= np.abs(observed)[..., None] - 1e-12
    p = (1 + extreme.sum(axis=-1)) / (1 + permuted.shape[-1])
    return np.where(np.isfinite(observed) & np.isfinite(permuted).all(axis=-1), p, np.nan)


def paired_permutation(
    positive: Bool[np.ndarray, "records labels"],
    known: Bool[np.ndarray, "records labels"],
    first: Float[np.ndarray, "records labels"],
    second: Float[np.ndarray, "records labels"],
    patient: Int[np.ndarray, "records"],
    *,
    permutations: int = 1000,
    seed: int = 0,
    raw_scores: bool = False,
    sampling: Float[np.ndarray, "records"] | None = None,
) -> PermutationTest:
    """Permutation test of two models on the same records; `patient` is 0 … n-1, all its records swap together.

    `sampling` are weights of a case-enriched sample: a record keeps its weight whichever model its scores come from.
    Coins depend on the seed and the number of patients alone, so that tests of several fits may be averaged.
    """
    n_patients = int(patient.max()) + 1
    labels, metrics = positive.shape[1], len(RANKING_METRICS)

    def column(label: int) -> SortedColumn:
        rows = np.flatnonzero(known[:, label])
        pair = [s[rows, label] for s in (first, second)]
        if not raw_scores and all(np.isfinite(s).all() for s in pair):
            pair = [rankdata(s) for s in pair]
        owner = patient[rows]
        both = np.concatenate(pair).astype(np.float64)
        unit = np.concatenate([owner, owner + n_patients])
        weight = None if sampling is None else np.tile(sampling[rows], 2)
        return sort_column(np.tile(positive[rows, label], 2), both, unit=unit, sampling=weight)

    observed = np.empty((labels, metrics))
    permuted = np.empty((labels, metrics, permutations))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        columns = list(pool.map(column, range(labels)))
        plain = np.zeros((n_patients, 1), np.uint8)
        for label, difference in enumerate(pool.map(lambda c: _difference(c, plain), columns)):
            observed[label] = difference[:, 0]
        done = 0
        for swapped in _coins(n_patients, permutations, seed):
            lanes = slice(done, done + swapped.shape[1])
            for label, difference in enumerate(pool.map(lambda c, s=swapped: _difference(c, s), columns)):
                permuted[label, :, lanes] = difference
            done += swapped.shape[1]
    return PermutationTest(observed, permuted)


def _coins(n_patients: int, permutations: int, seed: int) -> Iterator[UInt8[np.ndarray, "patients lanes"]]:
    """Blocks of coins: 1 where a patient's scores are swapped. The block size never changes them."""
    rng = np.random.default_rng(seed)
    for start in range(0, permutations, BLOCK):
        coins = [rng.integers(0, 2, n_patients, dtype=np.uint8) for _ in range(min(BLOCK, permutations - start))]
        yield np.ascontiguousarray(np.stack(coins, axis=1))


def _difference(
    column: SortedColumn, swapped: UInt8[np.ndarray, "patients lanes"]
) -> Float[np.ndarray, "metrics lanes"]:
    """First minus second model, where each patient's rows belong to the other model if swapped."""
    kept = np.ascontiguousarray(1 - swapped)
    first = weighted_metrics(column, np.concatenate([kept, swapped]))
    second = weighted_metrics(column, np.concatenate([swapped, kept]))
    difference: np.ndarray = first - second
    return difference
