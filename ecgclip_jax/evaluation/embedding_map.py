"""Two dimensions in which neighbours in the shared space stay neighbours: to be looked at, never measured."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float, Int

NO_LABEL = "no label"


def umap_points(embedding: Float[np.ndarray, "records dim"]) -> Float[np.ndarray, "records 2"]:
    """UMAP with cosine distance and a fixed seed."""
    import umap  # takes seconds to import

    with warnings.catch_warnings():
        # A fixed seed means one thread, of which umap warns each time.
        warnings.simplefilter("ignore")
        reducer = umap.UMAP(metric="cosine", random_state=0, n_neighbors=min(15, len(embedding) - 1))
        return np.asarray(reducer.fit_transform(embedding), np.float32)


def shown_on_a_map(n_records: int, most: int) -> Int[np.ndarray, "shown"]:
    """Which records a map shows, rising: all of a few, a fixed random choice of many."""
    return np.sort(np.random.default_rng(0).permutation(n_records)[:most])


def rarest_label(positive: Bool[np.ndarray, "records labels"], names: list[str]) -> list[str]:
    """Of each record the label that the fewest records have; a picture has one colour per point."""
    order = np.argsort(positive.sum(axis=0), kind="stable")
    first = order[positive[:, order].argmax(axis=1)]
    return [names[i] if row.any() else NO_LABEL for i, row in zip(first, positive, strict=True)]
