"""What a report says, statement by statement."""

from __future__ import annotations

import re

_SPACES = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")
_END_OF_STATEMENT = re.compile(r"[\n\r;]|\.(?=\s|\Z)")
"""A line's end, a semicolon, or a full stop that is no decimal point."""


def split_statements(text: str) -> tuple[str, ...]:
    """The statements of a text, in order, each once: what stands between line ends, semicolons and full stops.

    Without their full stops, as prompts are written. Pieces without a letter are none; statements that differ in case
    only are one.
    """
    distinct: dict[str, str] = {}
    for piece in _END_OF_STATEMENT.split(text):
        statement = _SPACES.sub(" ", piece).strip()
        if _LETTER.search(statement):
            distinct.setdefault(statement.casefold(), statement)
    return tuple(distinct.values())
