"""Abbreviations of a cohort's reports, written out: a text tower knows the words, not one hospital's shorthand."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any, Literal

AbbreviationTable = Literal["ptb_xl", "mimic_iv_ecg"]


def expand_abbreviations(text: str, table: AbbreviationTable) -> str:
    """Every abbreviation of the table (`data/abbreviations.toml`) in `text` written out, in the case it had."""
    pattern, long_forms = _table(table)
    return pattern.sub(lambda match: _in_case_of(match.group(), long_forms[match.group().lower()]), text)


def abbreviations(table: AbbreviationTable) -> dict[str, str]:
    """Short forms in lower case, and what they stand for."""
    return dict(_table(table)[1])


@cache
def _table(name: AbbreviationTable) -> tuple[re.Pattern[str], dict[str, str]]:
    source = resources.files("ecgclip_jax.text") / "data" / "abbreviations.toml"
    rows: list[dict[str, Any]] = tomllib.loads(source.read_text("utf-8"))[name]
    long_forms = {row["short"]: row["long"] for row in rows}
    longest_first = sorted(long_forms, key=len, reverse=True)
    alternatives = "|".join(re.escape(short) for short in longest_first)
    return re.compile(rf"(?<![\w.-])(?:{alternatives})(?![\w-])", re.IGNORECASE), long_forms


def _in_case_of(short: str, long: str) -> str:
    if short.isupper():
        return long.upper()
    return long[0].upper() + long[1:] if short[0].isupper() else long
