"""Report text as it comes from cohorts: cleaning, emptiness, language. The raw text always stays beside the result.

Cleanings are named. `plain` is ours and removes what is not a finding: control characters, starred banners, signature
and "unconfirmed" lines, and the label codes that PTB-XL's editors appended to reports. `ptb_xl` and `mimic_iv_ecg` do
that and what their cohort needs besides. `merl` is what MERL's released preprocessing does, character for character,
for runs that reproduce it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from ecgclip_jax.spec.statements import STATEMENT_KINDS, StatementKind
from ecgclip_jax.text.abbreviations import expand_abbreviations
from ecgclip_jax.text.languages import Language, guess_language
from ecgclip_jax.text.statements import split_statements, without_other_kinds

__all__ = [
    "CleaningStyle",
    "Language",
    "clean_report",
    "guess_language",
    "join_columns",
    "report_flags",
    "report_statements",
    "training_report",
]

CleaningStyle = Literal["plain", "merl", "ptb_xl", "mimic_iv_ecg"]

# PTB-XL: codes with likelihoods appended by an editor ("… Edit: IMI 100, LVH 80 (IMI 100)"). They are the labels
# themselves; a text tower that reads them has seen the answer.
_APPENDED_LABELS = re.compile(r"\s*\bEdit:.*\Z", re.DOTALL)
_NOT_FINDINGS = re.compile(
    r"""
      \b4\.46(?:\s+u\w*(?:\s+b\w*)?)?\s*\Z   # PTB-XL's carts: their software version, and then "unconfirmed report",
    | \bunbestätigter\s+bericht              # … often cut off anywhere, since reports were stored in so many characters
    | \bunconfirmed(?:\s+(?:report|analysis|ecg|diagnosis))?\b(?:\s+-\s+md\s+must\s+review)?
    | \b(?:electronically\s+)?(?:confirmed|signed|reviewed)\s+by\b[^.;\n]*
    | \b(?:automated\s+analysis|computer\s+interpretation)\b
    | \btrace\s+only\s+requested\b
    | \bpat\.\s+uppgifter\s+saknas          # Swedish: patient details missing
    """,
    re.VERBOSE | re.IGNORECASE,
)
_STARRED_BANNER_MARKS = re.compile(r"\*{2,}|={2,}|-{3,}|_{3,}")
# An ü that was lost before publication: "f#r linkshypertrophie", "r-s #bergang" (the only two words so written).
_LOST_UMLAUT = re.compile(r"\bf#r\b|#bergang")
_PUNCTUATION_ALONE = re.compile(r"(?:(?<=\s)|^)[^\w\s]+(?:(?=\s)|$)")
_MEANINGFUL_ALONE = frozenset("&+-/<>=")
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode categories of control characters, format characters and line separators."""
_SPACES = re.compile(r"\s+")
_STARS_BEFORE_STOP = re.compile(r"\s*\*{2,}(?=\.)")
_REPEATED_STOP = re.compile(r"\.{2,}")
_MACHINE_HEADING = re.compile(r"(?:(?<=\.\s)|\A)(?:summary:|-)\s*", re.IGNORECASE)
"""How a machine begins a statement that sums up, or that goes on with the one before."""
_LETTER = re.compile(r"[^\W\d_]")


def _repair_characters(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    if not text.replace("\n", "").isprintable():  # no invisible character is; most reports have none
        text = "".join(" " if unicodedata.category(c) in _INVISIBLE and c != "\n" else c for c in text)
    text = _LOST_UMLAUT.sub(lambda m: m.group().replace("#", "ü"), text)
    # Lower-cased by a tool that knew ASCII only ("mÄssige"): finish what it began.
    return text if re.search("[A-Z]", text) else text.lower()


def _findings_only(text: str) -> str:
    """Without what is not a finding; lines and spaces are as they were."""
    text = _repair_characters(_APPENDED_LABELS.sub("", text))
    text = _STARRED_BANNER_MARKS.sub(" ", _NOT_FINDINGS.sub(" ", text))
    return _PUNCTUATION_ALONE.sub(lambda m: m.group() if m.group() in _MEANINGFUL_ALONE else " ", text)


def _clean_plain(text: str) -> str:
    return _if_any_word(_SPACES.sub(" ", _findings_only(text)).strip())


def _if_any_word(text: str) -> str:
    return text if _LETTER.search(text) else ""


def _clean_merl(text: str) -> str:
    # The order of the strips, and that they take characters rather than prefixes, is the released notebook's.
    text = text.replace("EKG", "ECG").replace("ekg", "ecg")
    for characters in (" ***", "*** ", "***", "=-", "="):
        text = text.strip(characters)
    text = text.lower()
    if not text.split():
        return "empty"
    return text.replace("\n", " ").replace("\r", " ").replace("\t", " ") + "."


def _clean_ptb_xl(text: str) -> str:
    text = _clean_plain(text)
    return expand_abbreviations(text, "ptb_xl") if guess_language(text) == "de" else text


def _clean_mimic_iv_ecg(text: str) -> str:
    # A starred statement keeps the full stop behind its stars, or it would run into the next.
    text = expand_abbreviations(_clean_plain(_STARS_BEFORE_STOP.sub("", text)), "mimic_iv_ecg")
    return _REPEATED_STOP.sub(".", _MACHINE_HEADING.sub("", text))


_CLEANERS: Mapping[CleaningStyle, Callable[[str], str]] = MappingProxyType(
    {"plain": _clean_plain, "merl": _clean_merl, "ptb_xl": _clean_ptb_xl, "mimic_iv_ecg": _clean_mimic_iv_ecg}
)


def clean_report(text: str, style: CleaningStyle = "plain") -> str:
    """The report without what is not a finding.

    Args:
      text: one report as the cohort has it; see `join_columns` where it has several columns.
      style: `plain` (ours; lower-cases only text that already is, gives "" where no finding is left); `ptb_xl` (plain,
        and in German reports abbreviations written out); `mimic_iv_ecg` (plain; blanks and full stops as in prose,
        the machine's abbreviations written out, no "Summary:"); `merl` (MERL's `pretrain/preprocess.ipynb`: lower
        case, a final full stop, "empty" for an empty report).
    """
    return _CLEANERS[style](text)


def join_columns(cells: Iterable[str]) -> str:
    """One report of statements that a cohort keeps in columns (MIMIC-IV-ECG's `report_0` … `report_17`).

    Empty cells are left out and the rest joined with ". ", as MERL joins them, so that `merl` cleaning is MERL's to the
    character. What a machine wrote inside a cell, blanks included, is as it was.
    """
    return ". ".join(cell for cell in cells if cell)


def report_statements(raw: str, clean: str) -> tuple[str, ...]:
    """The statements of a report whose raw text is `raw` and whose cleaned text is `clean`.

    Cleaning joins lines, which in machine-written reports are the statements. Where `clean` is the plain cleaning of
    `raw` the lines are therefore taken from `raw`; a report that was cleaned otherwise is split as it is.
    """
    lines = _findings_only(raw)
    return split_statements(lines if _if_any_word(_SPACES.sub(" ", lines).strip()) == clean else clean)


def training_report(raw: str, clean: str, language: str, kinds: Collection[StatementKind]) -> str:
    """The cleaned report without the statements of other kinds; as it is where there are none."""
    if set(kinds) >= set(STATEMENT_KINDS):
        return clean
    return without_other_kinds(clean, report_statements(raw, clean), language, kinds)


def report_flags(text: str) -> tuple[str, ...]:
    """What a build's audit says about a raw report: `report_empty`, or `report_boilerplate` if no finding is in it.

    `report_labels_removed` marks a report to which label codes had been appended.
    """
    if not text.strip():
        return ("report_empty",)
    flags = ("report_labels_removed",) if _APPENDED_LABELS.search(text) else ()
    return flags if clean_report(text) else (*flags, "report_boilerplate")
