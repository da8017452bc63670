"""Scores and labels per record, so that anyone can compute every figure again.

Above `open` access record ids are left out, patients become random numbers and the rows are shuffled; the metrics can
still be recomputed, the records cannot be found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgclip_jax.evaluation.scored import Scored, TestSplit


def save_predictions(
    folder: Path, name: str, table: pa.Table, test: TestSplit, scored: Sequence[Scored], identified: bool
) -> Path:
    """Write `predictions-<name>.parquet`: `patient`, `known`, `label/<concept>`, `score/<arm>/<protocol>/<concept>`.

    `known` says whether the record's labels are known; in the order of the split's records only if `identified`.
    """
    patient = test.patient
    columns: dict[str, np.ndarray] = {}
    if identified:
        columns["record_id"] = np.array(table.column("record_id").to_pylist(), object)
    else:
        patient = np.random.default_rng().permutation(test.n_patients)[patient]
    columns["patient"] = patient
    columns["known"] = np.asarray(test.labels.known.any(axis=1))
    for index, concept in enumerate(test.labels.concepts):
        columns[f"label/{concept}"] = test.labels.positive[:, index]
        for s in scored:
            columns[f"score/{s.arm.name}/{s.protocol}/{concept}"] = s.scores[:, index].astype(np.float32)
    order = np.arange(len(patient)) if identified else np.random.default_rng().permutation(len(patient))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"predictions-{name}.parquet"
    part = path.with_suffix(".part")
    pq.write_table(pa.table({column: pa.array(values[order]) for column, values in columns.items()}), part)
    part.replace(path)
    return path
