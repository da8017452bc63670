"""The same figures by sex, age band and device: a macro mean hides whom a model serves badly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.evaluation.scored import ALL_LABELS, Scored, TestSplit
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.suites.opening import SuiteSplit
from ecgclip_jax.spec.suites import PRETRAINED

AGE_BANDS = ((18, 40), (40, 65), (65, 80), (80, 121))
"""Years, the upper end excluded (ours)."""
PROTOCOL = "linear_probe"
"""Whose scores with all labels are looked at: every suite has them, and they are fitted once."""
SMALLEST = 50
"""Records below which a subgroup is not looked at."""


def subgroup_rows(split: TestSplit, opened: SuiteSplit, scored: Sequence[Scored]) -> list[ResultRow]:
    """Macro means of the run's probe in every subgroup of a test cohort; the column `subgroup` says which."""
    own = [s for s in scored if (s.arm.name, s.protocol, s.fraction) == (PRETRAINED, PROTOCOL, ALL_LABELS)]
    rows: list[ResultRow] = []
    for name, members in _subgroups(opened) if own else ():
        if members.sum() < SMALLEST or members.all():
            continue
        part = _restricted(split, members)
        found = ranking_rows(part, [replace(s, scores=s.scores[members]) for s in own], ())
        rows += [replace(row, subgroup=name) for row in found]
    return rows


def _subgroups(opened: SuiteSplit) -> Iterator[tuple[str, Bool[np.ndarray, "records"]]]:
    table = opened.table
    age = table.column("age_years").to_numpy().astype(np.float64)
    for low, high in AGE_BANDS:
        yield f"age {low} to {high - 1}", (age >= low) & (age < high)
    for column in ("sex", "device"):
        values = np.array(table.column(column).to_pylist(), object) if column in table.column_names else np.array([])
        for value in sorted(set(values.tolist())):
            yield f"{column} {value}", np.asarray(values == value, bool)


def _restricted(split: TestSplit, members: Bool[np.ndarray, "records"]) -> TestSplit:
    """The split's members, their patients numbered anew."""
    labels = Labels(split.labels.concepts, split.labels.positive[members], split.labels.known[members])
    _, patient = np.unique(split.patient[members], return_inverse=True)
    sampling = None if split.sampling is None else split.sampling[members]
    return replace(split, labels=labels, patient=patient, sampling=sampling)
