"""Scores and labels per record, so that anyone can compute every figure again.

Above `open` access record ids are left out, patients become random numbers and the rows are shuffled; the metrics can
still be recomputed, the records cannot be found again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, Scored, TestSplit, Wording
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.whole_file import whole_file

PREFIX: Final = "predictions-"
_FACTS: Final = b"evaluation"


@dataclass(frozen=True)
class Predictions:
    """What `save_predictions` wrote, ready to be scored again."""

    test: TestSplit
    scored: tuple[Scored, ...]
    record_ids: tuple[str, ...] | None
    """None where they were left out: then the rows are in an order of their own."""


def save_predictions(
    folder: Path, name: str, table: pa.Table, test: TestSplit, scored: Sequence[Scored], identified: bool
) -> Path:
    """Write `predictions-<name>.parquet`, in the order of the split's records only if `identified`.

    Columns: `record_id` (only if `identified`), `patient`, `known` (whether any label is), `weight` (only of a
    case-enriched sample), per concept `label/…`, `known/…` and `score/<arm>/<protocol>/…`. A fit on few labels, or one
    of several, has its fraction and number behind the protocol: `fine_tune@0.1#3`; prompts other than the plain
    sentences have their name there: `zero_shot[class_names]`. What the rows need beside is in the metadata;
    `load_predictions` reads all of it.
    """
    patient = test.patient
    columns: dict[str, np.ndarray] = {}
    if identified:
        columns["record_id"] = np.array(table.column("record_id").to_pylist(), object)
    else:
        patient = np.random.default_rng().permutation(test.n_patients)[patient]
    columns["patient"] = patient
    columns["known"] = np.asarray(test.labels.known.any(axis=1))
    if test.sampling is not None:
        columns["weight"] = test.sampling
    for index, concept in enumerate(test.labels.concepts):
        columns[f"label/{concept}"] = test.labels.positive[:, index]
        columns[f"known/{concept}"] = test.labels.known[:, index]
        for s in scored:
            columns[f"{_column(s)}/{concept}"] = s.scores[:, index].astype(np.float32)
    order = np.arange(len(patient)) if identified else np.random.default_rng().permutation(len(patient))
    stored = pa.table({column: pa.array(values[order]) for column, values in columns.items()})
    path = folder / f"{PREFIX}{name}.parquet"
    with whole_file(path) as part:
        pq.write_table(stored.replace_schema_metadata({_FACTS: json.dumps(_facts(test, scored)).encode()}), part)
    return path


def _column(s: Scored) -> str:
    fit = "" if (s.fraction, s.repeat) == (ALL_LABELS, 0) else f"@{s.fraction:g}#{s.repeat}"
    words = "" if s.wording is None or s.wording.name == "sentences" else f"[{s.wording.name}]"
    return f"score/{s.arm.name}/{s.protocol}{words}{fit}"


def _facts(test: TestSplit, scored: Sequence[Scored]) -> dict[str, Any]:
    return {
        "concepts": list(test.labels.concepts),
        "groups": dict(test.groups),
        "label_sources": None if test.label_sources is None else dict(test.label_sources),
        "common": dict(test.common),
        "min_positives": test.min_positives,
        "macro_min_labels": test.macro_min_labels,
        "replicates": test.replicates,
        "seed": test.seed,
        "scored": [
            {
                "column": _column(s),
                "arm": vars(s.arm),
                "protocol": s.protocol,
                "excluded": {concept: str(why) for concept, why in s.excluded.items()},
                "fraction": s.fraction,
                "repeat": s.repeat,
                "wording": s.wording,
            }
            for s in scored
        ],
    }


def load_predictions(path: Path) -> Predictions:
    """Labels and scores of a stored file, without the notes on single labels.

    Raises:
        EvaluationError: no such file, or one of a version that did not say enough to be scored again.
    """
    if not path.is_file():
        raise EvaluationError(f"expected stored predictions {path}; run `ecgclip evaluate` first")
    table = pq.read_table(path)
    if _FACTS not in (table.schema.metadata or {}):
        raise EvaluationError(
            f"{path} is of an older version and lacks what is needed to score it again; run `ecgclip evaluate` again"
        )
    facts = json.loads(table.schema.metadata[_FACTS])
    concepts = tuple(facts["concepts"])

    def matrix(prefix: str) -> np.ndarray:
        return np.stack([table.column(f"{prefix}/{c}").to_numpy() for c in concepts], axis=1)

    test = TestSplit(
        labels=Labels(concepts, matrix("label"), matrix("known")),
        groups=facts["groups"],
        patient=table.column("patient").to_numpy(),
        common=facts["common"],
        min_positives=facts["min_positives"],
        macro_min_labels=facts["macro_min_labels"],
        replicates=facts["replicates"],
        seed=facts["seed"],
        sampling=table.column("weight").to_numpy() if "weight" in table.column_names else None,
        label_sources=facts["label_sources"],
    )
    scored = tuple(
        Scored(
            Arm(**s["arm"]),
            s["protocol"],
            matrix(s["column"]),
            {concept: Exclusion(why) for concept, why in s["excluded"].items()},
            fraction=s["fraction"],
            repeat=s["repeat"],
            wording=Wording(*s["wording"]) if s.get("wording") else None,
        )
        for s in facts["scored"]
    )
    ids = table.column("record_id").to_pylist() if "record_id" in table.column_names else None
    return Predictions(test, scored, None if ids is None else tuple(ids))
