"""Draws of few labels: 1 % and 10 % of the training patients, nested, several times.

Ours: patients are drawn without looking at their labels, so that a rare condition may be missing from a draw; what a
draw cannot define is listed, never replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from ecgclip_jax.spec.few_labels import drawn_persons, person


@dataclass(frozen=True)
class LabelDraw:
    """Training records whose labels are used: all records of some patients."""

    fraction: float
    """Of the patients."""
    repeat: int
    """Number of the draw; the first is the one that builders freeze beside the data."""
    rows: Int[np.ndarray, "chosen"]


def label_draws(table: pa.Table, fractions: Sequence[float], draws: int) -> list[LabelDraw]:
    """Every draw of every fraction; within a draw the smaller fraction lies in the larger.

    Args:
        table: the training records, with `record_id`, `patient_id` and `patient_id_known`.
        fractions: shares of the patients.
        draws: how many of each.
    """
    columns = (table.column(name).to_pylist() for name in ("record_id", "patient_id", "patient_id_known"))
    persons = [person(record, patient if known else "") for record, patient, known in zip(*columns, strict=True)]
    return [
        LabelDraw(fraction, draw, np.array([i for i, who in enumerate(persons) if who in chosen], np.int64))
        for draw in range(draws)
        for fraction, chosen in drawn_persons(persons, fractions, draw).items()
    ]
