"""What a report says, statement by statement: where each ends, and what it is about.

A report holds more than what its tracing shows: what an earlier tracing showed, what the patient suffers from, who
signed. A text tower that is to learn findings of this ECG reads the kinds it is given; which words mark a kind is data
(`data/statements_LANGUAGE.toml`, `data/splitting.toml`; the wordings are ours).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, cast

from ecgclip_jax.spec.statements import STATEMENT_KINDS, TRAINING_KINDS, StatementKind

KINDS = STATEMENT_KINDS
TYPED_LANGUAGES = ("en", "de")

_SPACES = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")
_END_OF_STATEMENT = re.compile(r"[\n\r;]|\.+(?=[\s;]|\Z)(?!\s*(?i:grad))")
"""A line's end, a semicolon, or full stops that are neither a decimal point nor that of "1. Grades"."""
_MORE_ON_THE_LINE = re.compile(r"[^\S\n\r]*[^\s;]")


@dataclass(frozen=True)
class Statement:
    """One statement of a report, without its full stop, and what it is about."""

    text: str
    kind: StatementKind


@dataclass(frozen=True)
class Rule:
    """Statements that `pattern` meets are of `kind`; `examples` are some, of which a test assures it."""

    kind: StatementKind
    about: str
    pattern: re.Pattern[str]
    carries: bool
    """What follows it in the same report is about the same."""
    examples: tuple[str, ...]


def split_statements(text: str) -> tuple[str, ...]:
    """The statements of a text, in order, each once, without their full stops (as prompts are written).

    They end at line ends, semicolons and full stops other than those of decimal points and known abbreviations; in
    German text that runs on without punctuation (PTB-XL), before the words with which a statement opens. Pieces
    without a letter are none; statements that differ in case only are one.
    """
    distinct: dict[str, str] = {}
    for sentence in _sentences(text):
        for piece in _pieces(_SPACES.sub(" ", sentence).strip()):
            distinct.setdefault(piece.casefold(), piece)
    return tuple(distinct.values())


# Machine reports draw on a few thousand statements: without this cache a million of them take minutes.
@lru_cache(maxsize=100_000)
def _pieces(sentence: str) -> tuple[str, ...]:
    return tuple(piece for piece in _run_on_pieces(sentence) if _LETTER.search(piece))


def type_statement(statement: str, language: str) -> StatementKind:
    """What one statement is about; `finding` where no rule says otherwise, `untyped` in a language without rules."""
    if language not in TYPED_LANGUAGES:
        return "untyped"
    rule = _deciding_rule(statement, language)
    return rule.kind if rule else "finding"


def type_statements(report: str, language: str) -> tuple[Statement, ...]:
    """The statements of a report with their kinds.

    After a line that only announces a comparison ("When compared with ECG of …,"), what would be a finding, negated or
    hedged belongs to the comparison, until a statement of another kind; so MUSE writes.
    """
    return tuple(_typed(split_statements(report), language))


def training_text(report: str, language: str, kinds: Collection[StatementKind] = TRAINING_KINDS) -> str:
    """The statements of the given kinds, joined by ". "; a report of which nothing is left out is returned as it is."""
    return without_other_kinds(report, split_statements(report), language, kinds)


def of_kinds(statements: tuple[str, ...], language: str, kinds: Collection[StatementKind]) -> tuple[str, ...]:
    """Those of a report's statements, in its order, that are of the given kinds."""
    if set(kinds) >= set(KINDS):
        return statements
    return tuple(statement.text for statement in _typed(statements, language) if statement.kind in kinds)


def without_other_kinds(
    report: str, statements: tuple[str, ...], language: str, kinds: Collection[StatementKind]
) -> str:
    """A report whose statements are known, without those of other kinds, ending in a full stop if it did; the report
    itself if there are none of these.
    """
    kept = of_kinds(statements, language, kinds)
    if len(kept) == len(statements):
        return report
    return ". ".join(text.rstrip(" ,:") for text in kept) + ("." if kept and report.rstrip().endswith(".") else "")


def _typed(statements: tuple[str, ...], language: str) -> Iterator[Statement]:
    carried: StatementKind | None = None
    for text in statements:
        kind = type_statement(text, language)
        if carried and kind in ("finding", "negated", "hedged"):
            kind = carried
        else:
            rule = _deciding_rule(text, language) if language in TYPED_LANGUAGES else None
            carried = rule.kind if rule and (rule.carries or rule.kind == carried) else None
        yield Statement(text, kind)


# Machine reports draw on a few thousand statements: without the cache typing takes most of a build's time for text.
@lru_cache(maxsize=100_000)
def _deciding_rule(statement: str, language: str) -> Rule | None:
    folded = _folded(statement, language)
    return next((rule for rule in statement_rules(language) if rule.pattern.search(folded)), None)


def _folded(statement: str, language: str) -> str:
    folded = _SPACES.sub(" ", statement.casefold()).strip()  # casefold writes ß as ss
    return folded if language != "de" else folded.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")


@cache
def statement_rules(language: str) -> tuple[Rule, ...]:
    """The rules of a language, in the order in which they are asked.

    Raises:
        KeyError: a language without rules.
    """
    if language not in TYPED_LANGUAGES:
        raise KeyError(f"no statement rules for language {language!r}; there are {list(TYPED_LANGUAGES)}")
    return tuple(_rule(entry) for entry in _read(f"statements_{language}.toml")["rule"])


def _rule(entry: dict[str, Any]) -> Rule:
    pattern = re.compile("|".join(f"(?:{alternative})" for alternative in entry["any"]))
    kind = cast("StatementKind", entry["kind"])
    return Rule(kind, entry["about"], pattern, entry.get("carries", False), tuple(entry["examples"]))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("ecgclip_jax.text") / "data" / name).read_text("utf-8"))


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _END_OF_STATEMENT.finditer(text):
        if (
            end.group() == "."
            and text[end.end() :].strip()
            and _splitting().abbreviation.search(text, start, end.end())
        ):
            continue
        yield text[start : end.start()]
        start = end.end()
    yield text[start:]


def _run_on_pieces(sentence: str) -> Iterator[str]:
    start = 0
    for opening in _splitting().opening.finditer(sentence):
        before = sentence[start : opening.start()].rstrip()
        if before and not _splitting().joined.search(before):
            yield before
            start = opening.start()
    yield sentence[start:].strip()


@dataclass(frozen=True)
class _Splitting:
    abbreviation: re.Pattern[str]
    """Ends with the full stop of an abbreviation, at the end of what is searched."""
    opening: re.Pattern[str]
    joined: re.Pattern[str]
    """Ends with what ties the next words to it."""


@cache
def _splitting() -> _Splitting:
    rules = _read("splitting.toml")
    run_on = {name: "|".join(alternatives) for name, alternatives in rules["run_on"].items()}
    lead = rf"(?:(?:{run_on['leads_in']})\s+)"
    opening = rf"(?<![\w(/.-])(?:{lead}*(?:{run_on['heads']})|{lead}+(?:{run_on['led_heads']}))(?![\w-])"
    return _Splitting(
        re.compile(rf"\b(?:{'|'.join(rules['abbreviations'])})\.\Z", re.IGNORECASE),
        re.compile(opening, re.IGNORECASE),
        re.compile(rf"(?:[,:]|(?:^|\s)(?:{run_on['joined_by']}))\Z", re.IGNORECASE),
    )
