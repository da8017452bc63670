"""Frozen outputs of every model for every split of a suite, kept beside the results and made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.embedding import EcgArrays, Model, Store, embed_split
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit

TABULAR_MEASUREMENTS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_deg")
"""What a cart prints beside the tracing, where a cohort has it."""


@dataclass(frozen=True)
class SplitArrays:
    """Of one split: each model's arrays, the trivial features and the table that any hospital has."""

    models: Mapping[str, EcgArrays]
    trivial: Float[np.ndarray, "records features"]
    tabular: Float[np.ndarray, "records columns"]
    """Age, female sex and `TABULAR_MEASUREMENTS`; NaN where unknown."""


def embed_set(
    opened: OpenSet,
    models: Mapping[str, Model],
    store: Store,
    batch: int,
    start: Callable[[str, int], Callable[[int], None]],
) -> dict[str, SplitArrays]:
    """Arrays of all splits by name. `start` begins a progress bar for a split and returns how to advance it."""
    splits = (opened.train, opened.validation, *opened.tests)
    return {split.name: _embed(split, models, store, batch, start(split.name, split.n_records)) for split in splits}


def _embed(
    split: SuiteSplit, models: Mapping[str, Model], store: Store, batch: int, advance: Callable[[int], None]
) -> SplitArrays:
    found = [embed_split(part.opened, part.rows, dict(models), store, advance, batch) for part in split.parts]
    joined = {
        name: EcgArrays(
            np.concatenate([arrays[name].embedding for arrays, _ in found]),
            np.concatenate([arrays[name].features for arrays, _ in found]),
        )
        for name in models
    }
    return SplitArrays(joined, np.concatenate([trivial for _, trivial in found]), tabular_features(split))


def tabular_features(split: SuiteSplit) -> Float[np.ndarray, "records columns"]:
    """See `SplitArrays.tabular`."""
    return np.concatenate([_columns(part.opened, part.rows) for part in split.parts]).astype(np.float32)


def _columns(opened: CohortSplit, rows: Int[np.ndarray, "records"]) -> Float[np.ndarray, "records columns"]:
    sex = opened.table.column("sex").to_pylist()
    female = np.array([{"female": 1.0, "male": 0.0}.get(value, np.nan) for value in sex])
    measured = [
        opened.numbers(name) if name in opened.numeric_names else np.full(len(opened), np.nan)
        for name in TABULAR_MEASUREMENTS
    ]
    columns: np.ndarray = np.stack([opened.numbers("age_years"), female, *measured], axis=1)[rows]
    return columns
