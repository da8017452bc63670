"""Which records an evaluation may use: first windows, no patient in two roles, nothing that pre-training has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from ecgclip_jax.data.exposure import find_overlap
from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.tasks import EvaluationError

Overlapping = Literal["refuse", "flag", "exclude"]
"""What to do with test records whose recording or patient was seen in pre-training."""


def require_disjoint(opened: Mapping[str, list[CohortSplit]]) -> None:
    """No split and no patient may serve twice: what is chosen on validation must be new to the test."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for role, splits in opened.items():
        for split in splits:
            ids = split.table.column("patient_id").to_pylist()
            known = split.table.column("patient_id_known").to_pylist()
            for patient in {(split.cohort, i) for i, k in zip(ids, known, strict=True) if k}:
                other_role, other = seen.setdefault(patient, (role, split.name))
                if other_role != role:
                    raise EvaluationError(
                        f"a patient of {split.name} ({role}) is also in {other} ({other_role}); "
                        "evaluation.train, validation and test must not share patients"
                    )


def choose_rows(
    split: CohortSplit, exposure: str | Path | None, action: Overlapping, warnings: list[str]
) -> Int[np.ndarray, "rows"]:
    """First windows only, and of a test split what `on_overlap` leaves."""
    rows = np.flatnonzero(np.array(split.table.column("window_index").to_pylist()) == 0)
    if exposure is None:
        return rows
    overlap = find_overlap(exposure, split)
    if not overlap.ids_checked:
        warnings.append(
            f"{split.name}: patient ids of the run are pseudonyms without their key; only waveforms were compared"
        )
    n_records, n_patients = int(overlap.record[rows].sum()), int(overlap.patient[rows].sum())
    if not n_patients:
        return rows
    what = f"{n_records} records of {split.name} were seen in pre-training, {n_patients} belong to patients seen there"
    if action == "refuse":
        raise EvaluationError(f"{what}; evaluate on other records, or say on_overlap 'exclude' or 'flag'")
    warnings.append(f"{what} ({'left out' if action == 'exclude' else 'KEPT: these figures are not held-out'})")
    return rows[~overlap.patient[rows]] if action == "exclude" else rows
