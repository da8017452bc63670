"""Labels of records in concepts: what each is known to have. Training and evaluation take them from here alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.concepts import VOCABULARIES, codes_to_concepts


class LabelError(UserError):
    """Labels that cannot be had as asked; the message says what to change."""


@dataclass(frozen=True)
class Labels:
    """Records × concepts: what is there, and where that is known at all."""

    concepts: tuple[str, ...]
    positive: Bool[np.ndarray, "records labels"]
    known: Bool[np.ndarray, "records labels"]


def require_vocabulary(vocabulary: str, setting: str) -> None:
    """Refuses a vocabulary without a table of concepts.

    Raises:
        LabelError: it names `setting`, the field of the experiment to change.
    """
    if vocabulary not in VOCABULARIES:
        raise LabelError(f"{setting} is {vocabulary!r}; there are {', '.join(VOCABULARIES)}")


def record_concepts(
    vocabularies: Sequence[str], codes: Sequence[Sequence[str]], vocabulary: str, setting: str
) -> list[frozenset[str] | None]:
    """Concepts of each record; None where the record has no labels in `vocabulary` and so nothing is known.

    A code counts as present whatever its stated likelihood (PTB-XL's benchmark convention). A record without any code
    is unlabelled, not healthy.

    Args:
        vocabularies: `label_vocabulary` of each record.
        codes: `label_codes` of each record.
        vocabulary: whose codes are mapped.
        setting: the field of the experiment that chose it, for messages.

    Raises:
        LabelError: no table for the vocabulary, or no record with labels in it.
    """
    require_vocabulary(vocabulary, setting)
    known: dict[tuple[str, ...], frozenset[str]] = {}
    records: list[frozenset[str] | None] = []
    for own, stated in zip(vocabularies, codes, strict=True):
        if own != vocabulary or not stated:
            records.append(None)
            continue
        key = tuple(stated)
        if key not in known:
            known[key] = frozenset(codes_to_concepts(vocabulary, key))
        records.append(known[key])
    if not any(record is not None for record in records):
        raise LabelError(
            f"no record has labels in the vocabulary {vocabulary!r}; the table's are "
            f"{', '.join(sorted(set(map(str, vocabularies)))) or 'none'}. Set {setting} accordingly"
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
    known = np.array([record is not None for record in records], bool)
    return Labels(tuple(concepts), positive, np.repeat(known[:, None], len(concepts), axis=1))
