"""Labels of an evaluation: what each record is known to have, in concepts, and which of them a test can score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from ecgclip_jax.evaluation.results import Exclusion
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.concepts import VOCABULARIES, codes_to_concepts, concepts_in


class EvaluationError(UserError):
    """An evaluation that cannot be done as asked; the message says what to change."""


@dataclass(frozen=True)
class Labels:
    """Records × concepts: what is there, and where that is known at all."""

    concepts: tuple[str, ...]
    positive: Bool[np.ndarray, "records labels"]
    known: Bool[np.ndarray, "records labels"]

    def exclusions(self, min_positives: int) -> dict[str, Exclusion]:
        """Concepts this split cannot score, and why."""
        positives = (self.positive & self.known).sum(axis=0)
        negatives = (~self.positive & self.known).sum(axis=0)
        found = {}
        for concept, n_positives, n_negatives in zip(self.concepts, positives, negatives, strict=True):
            if n_positives == 0:
                found[concept] = Exclusion.NO_POSITIVE_IN_TEST
            elif n_negatives == 0:
                found[concept] = Exclusion.NO_NEGATIVE_IN_TEST
            elif n_positives < min_positives:
                found[concept] = Exclusion.FEW_TEST_POSITIVES
        return found


def record_concepts(table: pa.Table, vocabulary: str) -> list[frozenset[str] | None]:
    """Concepts of each record; None where the record has no labels in `vocabulary` and so nothing is known.

    A code counts as present whatever its stated likelihood (PTB-XL's benchmark convention). A record without any code
    is unlabelled, not healthy.
    """
    _require_known(vocabulary)
    known: dict[tuple[str, ...], frozenset[str]] = {}
    records: list[frozenset[str] | None] = []
    vocabularies = table.column("label_vocabulary").to_pylist()
    for own, codes in zip(vocabularies, table.column("label_codes").to_pylist(), strict=True):
        if own != vocabulary or not codes:
            records.append(None)
            continue
        key = tuple(codes)
        if key not in known:
            known[key] = frozenset(codes_to_concepts(vocabulary, key))
        records.append(known[key])
    if not any(record is not None for record in records):
        raise EvaluationError(
            f"no record has labels in the vocabulary {vocabulary!r}; the table's are "
            f"{', '.join(sorted(set(map(str, vocabularies)))) or 'none'}. Set evaluation.label_vocabulary accordingly"
        )
    return records


def label_matrix(records: Sequence[frozenset[str] | None], concepts: Sequence[str]) -> Labels:
    """The label matrix over `concepts`, in their order: labels are matched by name, never by position."""
    column = {concept: index for index, concept in enumerate(concepts)}
    positive = np.zeros((len(records), len(concepts)), bool)
    for row, found in enumerate(records):
        for concept in found or ():
            if concept in column:
                positive[row, column[concept]] = True
    known = np.array([record is not None for record in records])
    return Labels(tuple(concepts), positive, np.repeat(known[:, None], len(concepts), axis=1))


def concepts_of(vocabulary: str) -> tuple[str, ...]:
    """Every concept that codes of the vocabulary can state.

    In the synthetic vocabulary wide concepts only repeat narrow ones and are left out; in a real one they are the
    cohort's own superclasses.
    """
    _require_known(vocabulary)
    return concepts_in(vocabulary, wide=vocabulary != "synthetic")


def _require_known(vocabulary: str) -> None:
    if vocabulary not in VOCABULARIES:
        raise EvaluationError(f"evaluation.label_vocabulary is {vocabulary!r}; there are {', '.join(VOCABULARIES)}")


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
