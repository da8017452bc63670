"""Frozen outputs of every model for every split of a suite, kept beside the results and made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.embedding import EcgArrays, Model, Store, embed_split, split_name
from ecgclip_jax.evaluation.suites.opening import OpenSet, SuiteSplit

Rows = Int[np.ndarray, "_"]
"""Row numbers of a split, rising."""
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
    start: Callable[[str, int], Callable[[int], None]],
    wanted: Mapping[str, Rows],
) -> dict[str, SplitArrays]:
    """Arrays of all splits by name.

    `start` begins a progress bar for a split and returns how to advance it. `wanted` is what all sets of the suite
    want of a cohort's split (`wanted_rows`), so that label sets over the same records are embedded once.
    """

    def embed(split: SuiteSplit) -> SplitArrays:
        rows = [wanted[split_name(part.opened)] for part in split.parts]
        advance = start(split.name, sum(map(len, rows)))
        return _embed(split, rows, models, store, advance)

    return {split.name: embed(split) for split in (opened.train, opened.validation, *opened.tests)}


def wanted_rows(sets: Sequence[OpenSet]) -> dict[str, Rows]:
    """By cohort, version and split: every row that any of the sets has chosen, rising."""
    found: dict[str, Rows] = {}
    for part in (p for own in sets for split in (own.train, own.validation, *own.tests) for p in split.parts):
        name = split_name(part.opened)
        found[name] = np.union1d(found[name], part.rows) if name in found else part.rows
    return found


def _embed(
    split: SuiteSplit,
    rows: Sequence[Rows],
    models: Mapping[str, Model],
    store: Store,
    advance: Callable[[int], None],
) -> SplitArrays:
    """Arrays of the split's records, out of those of all rows that are wanted of its parts."""
    models, parts = dict(models), list(zip(split.parts, rows, strict=True))
    found = [embed_split(part.opened, wanted, models, store, advance) for part, wanted in parts]
    own = [np.searchsorted(wanted, part.rows) for part, wanted in parts]
    joined = {
        name: EcgArrays(
            np.concatenate([arrays[name].embedding[at] for (arrays, _), at in zip(found, own, strict=True)]),
            np.concatenate([arrays[name].features[at] for (arrays, _), at in zip(found, own, strict=True)]),
        )
        for name in models
    }
    trivial = np.concatenate([features[at] for (_, features), at in zip(found, own, strict=True)])
    return SplitArrays(joined, trivial, tabular_features(split))


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
