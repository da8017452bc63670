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
from sklearn.model_selection import train_test_split

from ecgclip_jax.spec.few_labels import drawn_persons, person


@dataclass(frozen=True)
class LabelDraw:
    """Training records whose labels are used: all records of some patients."""

    fraction: float
    """Of the patients."""
    repeat: int
    """Number of the draw; the first is the one that builders freeze beside the data."""
    rows: Int[np.ndarray, "chosen"]


RELEASED_SEED = 42
"""Of the published protocols that draw single records."""


def record_draws(records: int, fractions: Sequence[float]) -> list[LabelDraw]:
    """As released: one draw of single records per fraction, by scikit-learn's `train_test_split` as MERL calls it.

    One record at least, where MERL's would fail.

    Which records it gives depends on their order, which is that of the prepared cohort and not of anyone's files.
    """
    everyone = np.arange(records, dtype=np.int64)
    return [
        LabelDraw(
            f,
            0,
            np.sort(train_test_split(everyone, train_size=max(1, int(f * records)), random_state=RELEASED_SEED)[0]),
        )
        for f in fractions
    ]


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
