"""Labels of a report by rule: the concepts that its statements state, found by their wordings, from the text alone.

What a supervised baseline learns from the reports that a contrastive model reads. Wordings are those of the concept
table, of the code tables of ECG statements, and the synonyms by which the synthetic reports are written: on synthetic
reports the rules therefore miss next to nothing, which makes the baseline as strong as it can be. No code of a record
is looked at. A hedged finding counts as stated (ours, as PTB-XL's benchmark counts every likelihood); a negated one, a
comparison and whatever else is no finding of this tracing does not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Final

from ecgclip_jax.spec.statements import StatementKind
from ecgclip_jax.text.code_tables import code_rows
from ecgclip_jax.text.concepts import CONCEPTS, codes_to_concepts
from ecgclip_jax.text.hospital_reports import german_phrases
from ecgclip_jax.text.report_writer import report_phrases
from ecgclip_jax.text.statements import of_kinds

REPORT_RULES: Final = "report_rules"
"""In place of a vocabulary of codes."""
STATING_KINDS: Final[tuple[StatementKind, ...]] = ("finding", "hedged", "untyped")
_STATEMENT_VOCABULARIES = ("12sl", "scp", "snomed", "aha")
"""Whose `text` is worded as a report words it."""
_NEGATED_BEFORE = re.compile(r"\b(?:no|not|without|kein|keine|ohne)\s+\Z")
_SPACES = re.compile(r"\s+")


def report_concepts(statements: Sequence[str], language: str) -> frozenset[str]:
    """Concepts, wide ones included, that a report states.

    Args:
        statements: of the report, in order (`text.reports.report_statements`).
        language: of the report; it decides which statements are no findings.
    """
    stating = set(of_kinds(tuple(statements), language, STATING_KINDS))
    # "No abnormality detected" is typed as negated, and is itself the wording of a normal ECG.
    chosen = [text for text in statements if text in stating or _folded(text) in _wordings()]
    return frozenset().union(*(_stated_in(text) for text in chosen))


# Reports repeat a few thousand statements.
@lru_cache(maxsize=100_000)
def _stated_in(statement: str) -> frozenset[str]:
    """Of overlapping wordings the longest counts: an incomplete block is not also a complete one."""
    text = _folded(statement)
    found = [m for m in _pattern().finditer(text) if not _NEGATED_BEFORE.search(text, 0, m.start())]
    return frozenset().union(*(_wordings()[match.group()] for match in found))


@cache
def _wordings() -> Mapping[str, frozenset[str]]:
    """Folded wording → the concepts it states; none where a table knows it and no concept asks for it."""
    found: dict[str, set[str]] = defaultdict(set)
    for wording, concepts in _sources():
        found[_folded(wording)] |= concepts
    return {wording: frozenset(concepts) for wording, concepts in found.items() if wording}


def _sources() -> Iterator[tuple[str, set[str]]]:
    for key, concept in CONCEPTS.items():
        yield concept.name, {key}
    for vocabulary in _STATEMENT_VOCABULARIES:
        for code, row in code_rows(vocabulary).items():
            yield row.text, codes_to_concepts(vocabulary, [code])
    for phrases in (report_phrases(), german_phrases()):
        for finding, lists in phrases.items():
            concepts = codes_to_concepts("synthetic", [finding])
            yield from ((wording, concepts) for name, own in lists.items() if name != "features" for wording in own)


@cache
def _pattern() -> re.Pattern[str]:
    longest_first = sorted(_wordings(), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def _folded(text: str) -> str:
    return _SPACES.sub(" ", text.casefold()).strip(" .")
