"""What can be asked of an ECG: concepts, and which codes of each label vocabulary state them.

A record's labels are codes of its own vocabulary, kept verbatim in the cohort. The versioned tables under `data/` say
which concepts a code means, so that one set of prompts serves every cohort: `concepts.csv` the concepts and which
wider ones follow from each, `codes/<vocabulary>.csv` the codes (`ecgclip_jax.text.code_tables` tells their columns).
Mapping is by exact code or by a vocabulary's own hierarchy, never by substring; a wide concept gathers narrower ones.
Unmapped means that no prompt asks for the code, never that the code was lost.

The assignments were made for this project from the sources that each row names. No clinician has reviewed them.

A statement of the ECG, a diagnosis of the patient (`icd10`) and a finding in echocardiography (`echonext`,
`mimic_iv_echo`) are different kinds of truth: where one concept holds several, results must be read by vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from ecgclip_jax.text.code_tables import VOCABULARIES, CodeRow, TableError, code_rows, keys_of, read_table

__all__ = [
    "CONCEPTS",
    "CONCEPT_TABLE_VERSION",
    "UNSEEN_CONCEPTS",
    "VOCABULARIES",
    "Concept",
    "codes_to_concepts",
    "concepts_in",
    "widened",
]

CONCEPT_TABLE_VERSION = "2.2.1"
"""Of all tables together; a test pins their hash to it. The first number rises when a code changes its meaning."""


@dataclass(frozen=True)
class Concept:
    """A thing to ask for. `codes[vocabulary]` state it exactly; `wide` marks one that gathers narrower concepts."""

    key: str
    name: str
    meaning: str
    codes: Mapping[str, tuple[str, ...]]
    wide: bool
    wider: tuple[str, ...]
    """Wide concepts that follow directly from this one."""


@cache
def _wider() -> dict[str, tuple[str, ...]]:
    """Concept → the wide concepts that follow directly from it."""
    return {row["concept"]: tuple(row["wider"].split()) for row in read_table("concepts.csv")}


def widened(concepts: Iterable[str]) -> frozenset[str]:
    """The concepts and all wider ones that follow from them.

    Raises:
        KeyError: an unknown concept.
    """
    wider, found, open_ = _wider(), set[str](), list(concepts)
    while open_:
        concept = open_.pop()
        if concept not in found:
            found.add(concept)
            open_ += wider[concept]
    return frozenset(found)


def _stated(row: CodeRow, vocabulary: str) -> frozenset[str]:
    """All concepts that a row's code states, wide ones included."""
    try:
        follow = widened(row.concepts)
    except KeyError as fault:
        raise TableError(f"codes/{vocabulary}.csv, {row.code!r} names the unknown concept {fault}") from None
    if stray := set(row.but_not) - follow:
        raise TableError(f"codes/{vocabulary}.csv, {row.code!r} excepts {sorted(stray)}, which would not follow")
    return follow - set(row.but_not)


@cache
def _concepts_by_key(vocabulary: str) -> dict[str, frozenset[str]]:
    """Table key → the concepts it states.

    Raises:
        KeyError: a vocabulary without a table.
    """
    return {code: _stated(row, vocabulary) for code, row in code_rows(vocabulary).items()}


def _load() -> dict[str, Concept]:
    codes: dict[str, dict[str, list[str]]] = {key: {v: [] for v in VOCABULARIES} for key in _wider()}
    for vocabulary in VOCABULARIES:
        for code, concepts in _concepts_by_key(vocabulary).items():
            for concept in concepts:
                codes[concept][vocabulary].append(code)
    return {
        row["concept"]: Concept(
            row["concept"],
            row["name"],
            row["meaning"],
            {vocabulary: tuple(found) for vocabulary, found in codes[row["concept"]].items()},
            row["wide"] == "yes",
            _wider()[row["concept"]],
        )
        for row in read_table("concepts.csv")
    }


CONCEPTS: dict[str, Concept] = _load()

UNSEEN_CONCEPTS: frozenset[str] = frozenset({"dextrocardia", "hyperkalaemia", "posterior_infarction"})
"""Never named in any synthetic report (their waves may be described): results on them are reported apart."""


def codes_to_concepts(vocabulary: str, codes: Iterable[str]) -> set[str]:
    """Keys of every concept, wide ones included, that at least one of the codes states.

    Raises:
        KeyError: a vocabulary without a table. Unknown codes state nothing and raise nothing.
    """
    table = _concepts_by_key(vocabulary)
    stated: set[str] = set()
    for code in codes:
        for key in keys_of(vocabulary, code):
            stated |= table.get(key, frozenset())
    return stated


def concepts_in(vocabulary: str, *, wide: bool = False) -> tuple[str, ...]:
    """Concepts that codes of this vocabulary can state, in table order; wide ones only on request.

    Raises:
        KeyError: a vocabulary without a table.
    """
    code_rows(vocabulary)
    return tuple(k for k, c in CONCEPTS.items() if c.codes[vocabulary] and (wide or not c.wide))
