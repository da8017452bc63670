"""Rows of retrieval: recall and median rank per direction and model, queries resampled by patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.evaluation.protocols.retrieval import RECALL_AT, Ranks
from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.row_columns import NO_ESTIMATE, estimate_columns, row_identity
from ecgclip_jax.evaluation.scored import Arm, TestSplit
from ecgclip_jax.metrics.intervals import percentile_interval
from ecgclip_jax.metrics.resampling import bootstrap_means, bootstrap_medians


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
    columns = row_identity(split, arm, other, "retrieval") | {"label": direction, "metric": metric, "chance": chance}
    counts = {"n": 0, "n_patients": 0}
    if not math.isfinite(value):
        return ResultRow(**columns | counts | NO_ESTIMATE | {"excluded": str(Exclusion.SCORES_NOT_FINITE)})
    return ResultRow(**columns | counts | estimate_columns(value, percentile_interval(draws)))
