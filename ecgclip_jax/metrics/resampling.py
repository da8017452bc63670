"""Patient-level bootstrap whose draws are shared by every label and every model.

Records of one patient are not independent, so patients are drawn, not records (Pang 2023, Front Vet Sci,
doi 10.3389/fvets.2023.1274786: record-level draws under-cover). A draw is how often each patient came up; the same
draws weigh every label and model, so the interval of a paired difference is a subtraction. Draws come in blocks:
memory does not grow with their number, and their values depend on (seed, number of patients) alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ecgclip_jax.metrics.ranking import SortedColumn, sort_column, weighted_metrics

Figures = Callable[[SortedColumn, np.ndarray], np.ndarray]
"""Of a column under weights `[units, lanes]`: figures `[metrics, lanes]`."""
PARTS_PER_CORE = 4
"""Columns are shared out in so many parts: handing each over by itself takes as long as its kernel."""
BLOCK = 250
"""Draws held at a time: 100,000 patients x 250 draws are 25 MB."""


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


def stratified_draws(
    stratum: Int[np.ndarray, "patients"], replicates: int, seed: int
) -> Iterator[UInt8[np.ndarray, "patients draws"]]:
    """Blocks of draws that take from every stratum as many patients as it has.

    With the strata "has a positive record of this label" and "has none" the number of positives, and so the prevalence,
    keeps still (the ecg-fix protocol, arXiv 2602.17531: per label, each record a patient). Draws depend on the seed and
    the strata alone, so that models share them.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    for start in range(0, replicates, BLOCK):
        counts = np.empty((min(BLOCK, replicates - start), len(stratum)), np.uint8)
        for draw in counts:
            for own in members:
                draw[own] = np.bincount(rng.integers(0, len(own), len(own), dtype=np.int32), minlength=len(own))
        yield np.ascontiguousarray(counts.T)


def sort_columns(
    positive: Bool[np.ndarray, "records labels"],
    known: Bool[np.ndarray, "records labels"],
    scores: Float[np.ndarray, "records labels"],
    patient: Int[np.ndarray, "records"],
    sampling: Float[np.ndarray, "records"] | None = None,
) -> list[SortedColumn]:
    """One sorted column per label, sorted on all cores."""

    def sort(label: int) -> SortedColumn:
        score = np.ascontiguousarray(scores[:, label])
        return sort_column(positive[:, label], score, unit=patient, known=known[:, label], sampling=sampling)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(sort, range(positive.shape[1])))


def bootstrap_ranking(
    columns: Sequence[SortedColumn],
    n_patients: int,
    *,
    replicates: int,
    seed: int,
    figures: Figures = weighted_metrics,
    stratum: Int[np.ndarray, "patients"] | None = None,
) -> Float[np.ndarray, "columns metrics draws"]:
    """`figures` (`RANKING_METRICS` by default) of each column under the same patient draws; NaN where undefined.

    `column.unit` must be the record's patient, 0 … n_patients - 1. With `stratum` draws keep the number of patients per
    stratum. Columns run on all cores: the kernels hold no GIL.
    """
    one = np.ones((n_patients, 1), np.uint8)
    n_figures = len(figures(columns[0], one)) if columns else 0
    result = np.empty((len(columns), n_figures, replicates))
    blocks = patient_draws(n_patients, replicates, seed)
    if stratum is not None:
        blocks = stratified_draws(stratum, replicates, seed)
    cores = os.cpu_count() or 1
    parts = [range(first, len(columns), PARTS_PER_CORE * cores) for first in range(PARTS_PER_CORE * cores)]

    def fill(part: range, block: UInt8[np.ndarray, "patients _"], lanes: slice) -> None:
        for index in part:
            result[index, :, lanes] = figures(columns[index], block)

    done = 0
    with ThreadPoolExecutor(max_workers=cores) as pool:
        for block in blocks:
            lanes = slice(done, done + block.shape[1])
            list(pool.map(fill, parts, repeat(block), repeat(lanes)))
            done += block.shape[1]
    return result


def bootstrap_sums(
    terms: Sequence[Callable[[], Float[np.ndarray, "rows records"]]],
    patient: Int[np.ndarray, "records"],
    n_patients: int,
    *,
    replicates: int,
    seed: int,
) -> list[Float[np.ndarray, "rows draws"]]:
    """Sums over records under patient draws (the same draws as `bootstrap_ranking` for the same seed).

    Every figure that is a function of sums has its draws from here: counts at a threshold, Brier, calibration bins.
    Each of `terms` makes its own rows when asked, once per block of draws, so that they never stand side by side.
    """
    blocks: list[list[np.ndarray]] = [[] for _ in terms]
    for block in patient_draws(n_patients, replicates, seed):
        counts = block.astype(np.float64)
        for found, make in zip(blocks, terms, strict=True):
            rows = make()
            found.append(np.stack([np.bincount(patient, weights=r, minlength=n_patients) for r in rows]) @ counts)
    return [np.concatenate(found, axis=1) for found in blocks]


def bootstrap_means(
    values: Float[np.ndarray, "rows records"],
    patient: Int[np.ndarray, "records"],
    *,
    replicates: int,
    seed: int,
) -> Float[np.ndarray, "rows draws"]:
    """Means over records under patient draws (the same draws as `bootstrap_ranking` for the same seed)."""
    rows = np.concatenate([values, np.ones((1, values.shape[1]))])
    (sums,) = bootstrap_sums([lambda: rows], patient, int(patient.max()) + 1, replicates=replicates, seed=seed)
    means: np.ndarray = np.full(sums[:-1].shape, np.nan)
    np.divide(sums[:-1], sums[-1], out=means, where=sums[-1] > 0)
    return means


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
