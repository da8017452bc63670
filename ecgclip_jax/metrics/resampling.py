"""Patient-level bootstrap whose draws are shared by every label and every model.

Records of one patient are not independent, so patients are drawn, not records (Pang 2023, Front Vet Sci,
doi 10.3389/fvets.2023.1274786: record-level draws under-cover). A draw is how often each patient came up; the same
draws weigh every label and model, so the interval of a paired difference is a subtraction. Draws come in blocks:
memory does not grow with their number, and their values depend on (seed, number of patients) alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ecgclip_jax.metrics.ranking import SortedColumn, sort_column, weighted_metrics

BLOCK = 250
"""Draws held at a time: 100,000 patients x 250 draws are 25 MB."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval of bootstrap draws; `discarded` is the share of draws that were undefined."""

    low: float
    high: float
    discarded: float


def patient_draws(n_patients: int, replicates: int, seed: int) -> Iterator[UInt8[np.ndarray, "patients draws"]]:
    """Blocks of bootstrap draws: how often each patient was drawn, with replacement, among `n_patients` draws.

    The block size never changes the draws: each comes from one generator in turn.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, BLOCK):
        counts = np.empty((min(BLOCK, replicates - start), n_patients), np.uint8)
        for draw in counts:
            # A count above 255 has probability below 1e-500 whatever the number of patients.
            draw[:] = np.bincount(rng.integers(0, n_patients, n_patients, dtype=np.int32), minlength=n_patients)
        yield np.ascontiguousarray(counts.T)


def sort_columns(
    positive: Bool[np.ndarray, "records labels"],
    known: Bool[np.ndarray, "records labels"],
    scores: Float[np.ndarray, "records labels"],
    patient: Int[np.ndarray, "records"],
) -> list[SortedColumn]:
    """One sorted column per label, sorted on all cores."""

    def sort(label: int) -> SortedColumn:
        score = np.ascontiguousarray(scores[:, label])
        return sort_column(positive[:, label], score, unit=patient, known=known[:, label])

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(sort, range(positive.shape[1])))


def bootstrap_ranking(
    columns: Sequence[SortedColumn], n_patients: int, *, replicates: int, seed: int
) -> Float[np.ndarray, "columns 2 draws"]:
    """AUROC (index 0) and average precision (1) of each column under the same patient draws; NaN where undefined.

    `column.unit` must be the record's patient, 0 … n_patients - 1. Columns run on all cores: the kernel holds no GIL.
    """
    result = np.empty((len(columns), 2, replicates))
    done = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for block in patient_draws(n_patients, replicates, seed):
            lanes = slice(done, done + block.shape[1])
            metrics = pool.map(weighted_metrics, columns, [block] * len(columns))
            for index, (area, average) in enumerate(metrics):
                result[index, 0, lanes], result[index, 1, lanes] = area, average
            done += block.shape[1]
    return result


def bootstrap_means(
    values: Float[np.ndarray, "rows records"],
    patient: Int[np.ndarray, "records"],
    *,
    replicates: int,
    seed: int,
) -> Float[np.ndarray, "rows draws"]:
    """Means over records under patient draws (the same draws as `bootstrap_ranking` for the same seed)."""
    n_patients = int(patient.max()) + 1
    sums = np.stack([np.bincount(patient, weights=row, minlength=n_patients) for row in values])
    sizes = np.bincount(patient, minlength=n_patients).astype(np.float64)
    blocks = []
    for block in patient_draws(n_patients, replicates, seed):
        weights = block.astype(np.float64)
        total = sizes @ weights
        blocks.append(np.divide(sums @ weights, total, out=np.full((len(values), len(total)), np.nan), where=total > 0))
    return np.concatenate(blocks, axis=1)


def bootstrap_medians(
    values: Float[np.ndarray, "records"],
    patient: Int[np.ndarray, "records"],
    *,
    replicates: int,
    seed: int,
) -> Float[np.ndarray, "draws"]:
    """Medians over records under patient draws: the lower median, which is always one of the values."""
    order = np.argsort(values, kind="stable")
    ordered, owner = values[order], patient[order]
    medians = []
    for block in patient_draws(int(patient.max()) + 1, replicates, seed):
        cumulated = np.cumsum(block[owner], axis=0, dtype=np.int64)
        medians.append(ordered[np.argmax(2 * cumulated >= cumulated[-1], axis=0)])
    return np.concatenate(medians)


def percentile_interval(draws: Float[np.ndarray, "draws"], level: float = 0.95) -> Interval:
    """The central `level` percentile interval of the defined draws, and the share of undefined ones."""
    defined = draws[np.isfinite(draws)]
    discarded = 1.0 - len(defined) / len(draws)
    if not len(defined):
        return Interval(np.nan, np.nan, discarded)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), discarded)


def macro_draws(
    draws: Float[np.ndarray, "labels draws"],
) -> tuple[Float[np.ndarray, "draws"], float]:
    """Macro mean per draw over one fixed label list, and the share of draws in which a label of it was undefined.

    In such a draw the mean is over the labels that are defined; a draw without any is NaN.
    """
    defined = np.isfinite(draws)
    n_defined = defined.sum(axis=0)
    total = np.where(defined, draws, 0.0).sum(axis=0)
    mean = np.divide(total, n_defined, out=np.full(draws.shape[1], np.nan), where=n_defined > 0)
    return mean, float(np.mean(n_defined < len(draws)))
