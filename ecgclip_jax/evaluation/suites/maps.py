"""A suite's test ECGs in two dimensions, with what a picture colours them by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from ecgclip_jax.evaluation.embedding import array_key
from ecgclip_jax.evaluation.embedding_map import rarest_label, shown_on_a_map, umap_points
from ecgclip_jax.evaluation.suites.arrays import SplitArrays
from ecgclip_jax.evaluation.suites.context import Suite
from ecgclip_jax.evaluation.suites.opening import OpenSet
from ecgclip_jax.spec.suites import PRETRAINED
from ecgclip_jax.spec.whole_file import whole_file

FEWEST = 20
"""Fewer ECGs make no map."""


def map_file(folder: Path, cohorts: str) -> Path:
    """Where the map of a set of cohorts is kept."""
    return folder / f"map-{cohorts}.parquet"


def save_map(suite: Suite, opened: OpenSet, arrays: Mapping[str, SplitArrays]) -> None:
    """Writes `map-<set>.parquet`: `x`, `y`, `test`, `site`, `device`, `label` of some of the run's test embeddings.

    Nothing is written where nothing per record may be kept.
    """
    embedding = np.concatenate([arrays[test.name].models[PRETRAINED].embedding for test in opened.tests])
    if not suite.keep or min(len(embedding), suite.spec.map_records) < FEWEST:
        return
    chosen = shown_on_a_map(len(embedding), suite.spec.map_records)
    points = _points(suite, opened.name, embedding[chosen])
    columns = {"x": points[:, 0], "y": points[:, 1]} | {
        name: [values[i] for i in chosen] for name, values in _categories(opened).items()
    }
    with whole_file(map_file(suite.folder, opened.name)) as part:
        pq.write_table(pa.table(columns), part)


def _points(suite: Suite, name: str, embedding: Float[np.ndarray, "shown dim"]) -> Float[np.ndarray, "shown 2"]:
    key = array_key("map", hashlib.sha256(embedding.tobytes()).hexdigest())
    return suite.store.get(f"map-{name}", key, ("points",), lambda: {"points": umap_points(embedding)})["points"]


def _categories(opened: OpenSet) -> dict[str, list[str]]:
    """By test, site, device and rarest label, one value per test record."""
    found: dict[str, list[str]] = {"test": [], "site": [], "device": [], "label": []}
    for test in opened.tests:
        found["test"] += [test.name] * test.n_records
        for column in ("site", "device"):
            found[column] += [value or "unknown" for value in test.table.column(column).to_pylist()]
        found["label"] += rarest_label(test.labels.positive, list(test.labels.concepts))
    return found
