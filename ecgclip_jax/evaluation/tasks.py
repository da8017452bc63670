"""What an evaluation asks: which concepts, which of them a test can score, and whose records are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from ecgclip_jax.data.labels import Labels, require_vocabulary
from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.concepts import concepts_in

LABEL_SETTING = "evaluation.label_vocabulary"


class EvaluationError(UserError):
    """An evaluation that cannot be done as asked; the message says what to change."""


def exclusions(labels: Labels, min_positives: int) -> dict[str, Exclusion]:
    """Concepts that a split with these labels cannot score, and why."""
    positives = (labels.positive & labels.known).sum(axis=0)
    negatives = (~labels.positive & labels.known).sum(axis=0)
    found = {}
    for concept, n_positives, n_negatives in zip(labels.concepts, positives, negatives, strict=True):
        if n_positives == 0:
            found[concept] = Exclusion.NO_POSITIVE_IN_TEST
        elif n_negatives == 0:
            found[concept] = Exclusion.NO_NEGATIVE_IN_TEST
        elif n_positives < min_positives:
            found[concept] = Exclusion.FEW_TEST_POSITIVES
    return found


def concepts_of(vocabulary: str) -> tuple[str, ...]:
    """Every concept that codes of the vocabulary can state.

    In the synthetic vocabularies wide concepts only repeat narrow ones and are left out; in a real one they are the
    cohort's own superclasses.

    Raises:
        LabelError: a vocabulary without a table of concepts.
    """
    require_vocabulary(vocabulary, LABEL_SETTING)
    return concepts_in(vocabulary, wide=not vocabulary.startswith("synthetic"))


def label_groups(concepts: Sequence[str], named: frozenset[str] | None) -> Mapping[str, str]:
    """`seen` where a training report names the concept, `unseen` where none does, `unknown` without the reports."""
    if named is None:
        return dict.fromkeys(concepts, "unknown")
    return {concept: "seen" if concept in named else "unseen" for concept in concepts}


def patient_index(table: pa.Table) -> tuple[Int[np.ndarray, "records"], int]:
    """Patient number 0 … n-1 of each record, and how many records without a patient id became their own patient."""
    ids = table.column("patient_id").to_pylist()
    known = table.column("patient_id_known").to_pylist()
    keys = [("patient", i) if k else ("record", r) for r, (i, k) in enumerate(zip(ids, known, strict=True))]
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], np.int64), len(keys) - sum(known)
