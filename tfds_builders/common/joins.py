"""Several metadata tables as one: joined by key, never by position, every file's hash in the result's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tfds_builders.common.cohort import BuildError


def add_columns(table: pa.Table, other: pa.Table, key: str, columns: Sequence[str], name: str) -> pa.Table:
    """Adds `columns` of `other` to the rows of `table` with the same `key`; cells of rows without a partner are empty.

    Args:
      name: what an error calls `other`.

    Raises:
      BuildError: if `other` holds a key twice, so that no one could say which row is meant.
    """
    keys = other[key].combine_chunks()
    if (distinct := len(keys.unique())) != len(keys):
        counts = pc.value_counts(keys).to_pylist()
        twice = next(entry["values"] for entry in counts if entry["counts"] > 1)
        raise BuildError(
            f"{name}: expected each {key} once, found {len(keys) - distinct} repeated, {twice} among them. "
            "Is it the cohort's own, unedited table?"
        )
    partner = pc.index_in(table[key].combine_chunks(), value_set=keys)
    for column in columns:
        cells = pc.fill_null(other[column].combine_chunks().take(partner), "")
        table = table.append_column(column, cells)
    return table


def joint_sha256(sha256s: Iterable[str]) -> str:
    """One hash for several files, in their order."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()
