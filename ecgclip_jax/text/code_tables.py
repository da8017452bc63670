"""Reads the reviewed tables of label codes: one CSV per vocabulary, one row per code, each row with its source.

The tables lie in `data/codes/` as plain CSV, so that a clinician reads and corrects them without reading Python.
A row says which concepts a code states. Columns:

- `code`: exactly as the cohort writes it, in the vocabulary's normal form (see `keys_of`);
- `text`: the source's own words for it;
- `concepts`: the narrowest concepts it states, separated by blanks; wider ones follow from `concepts.csv`. Empty: no
  prompt asks for it, and `certainty` is `none`;
- `but_not`: a wider concept that would follow and does not, with the reason in `note`;
- `certainty`: `exact` where code and concept say the same, `close` where degree or convention differ;
- `source`: a row of `sources.csv`, which also holds the licence;
- `reviewed_by`: who, with a clinician's training, has read the row. Empty everywhere: no one has.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, get_args

VOCABULARIES = (
    "synthetic",
    "synthetic_hospitals",
    "scp",
    "snomed",
    "aha",
    "code15",
    "cpsc2018",
    "12sl",
    "icd10",
    "echonext",
    "mimic_iv_echo",
)
"""Each with a table `data/codes/<name>.csv`."""

Certainty = Literal["exact", "close", "none"]


class TableError(ValueError):
    """A table that contradicts itself or its format; the message names file and row."""


@dataclass(frozen=True)
class CodeRow:
    """One code of a vocabulary and what it states."""

    code: str
    text: str
    concepts: tuple[str, ...]
    but_not: tuple[str, ...]
    certainty: Certainty
    source: str
    note: str
    reviewed_by: str


@cache
def code_rows(vocabulary: str) -> dict[str, CodeRow]:
    """The table of a vocabulary, by code, in the file's order.

    Raises:
        KeyError: a vocabulary without a table.
        TableError: a code twice, an unknown certainty, or a certainty at odds with the concepts.
    """
    if vocabulary not in VOCABULARIES:
        raise KeyError(f"no concept table for vocabulary {vocabulary!r}; there are {list(VOCABULARIES)}")
    rows: dict[str, CodeRow] = {}
    for cells in read_table(f"codes/{vocabulary}.csv"):
        row = _row(cells, vocabulary)
        if row.code in rows:
            raise TableError(f"codes/{vocabulary}.csv has the code {row.code!r} twice; join the two rows")
        rows[row.code] = row
    return rows


def keys_of(vocabulary: str, code: str) -> tuple[str, ...]:
    """The table keys that a record's code answers to. Everywhere by equality, never by substring.

    - `aha`: a statement with modifiers, `60+341`, answers to its primary, `60`, and to the primary with each modifier.
    - `icd10`: dots are dropped, and a code answers to each category above it: `I48.91` to `I48`, `I489` and `I4891`.
      That is ICD-10's own hierarchy; whatever stands in the table under a category holds for all codes below it.
    - `12sl`: statements differ in case, blanks and a final full stop between versions; the rest must be equal.
    """
    code = code.strip()
    if vocabulary == "aha":
        primary, *modifiers = (part.strip() for part in code.split("+"))
        return (primary, *(f"{primary}+{modifier}" for modifier in modifiers))
    if vocabulary == "icd10":
        flat = code.replace(".", "").upper()
        return tuple(flat[:length] for length in range(3, len(flat) + 1))
    if vocabulary == "12sl":
        return (" ".join(code.lower().split()).replace(" ,", ",").removesuffix("."),)
    return (code,)


def read_table(name: str) -> Iterator[dict[str, str]]:
    """Rows of a shipped CSV file as mappings from column to cell."""
    text = (resources.files("ecgclip_jax.text") / "data" / name).read_text("utf-8")
    for number, cells in enumerate(csv.DictReader(text.splitlines(), strict=True), start=2):
        if None in cells or None in cells.values():
            raise TableError(f"{name}, line {number}: expected as many cells as columns, found {list(cells.values())}")
        yield cells


def _row(cells: dict[str, str], vocabulary: str) -> CodeRow:
    concepts = tuple(cells["concepts"].split())
    certainty = cells["certainty"]
    if certainty not in get_args(Certainty) or (certainty == "none") != (not concepts):
        raise TableError(
            f"codes/{vocabulary}.csv, {cells['code']!r}: expected certainty 'none' without concepts and 'exact' or "
            f"'close' with them, found {certainty!r} with {list(concepts)}"
        )
    return CodeRow(
        cells["code"],
        cells["text"],
        concepts,
        tuple(cells["but_not"].split()),
        "none" if certainty == "none" else "exact" if certainty == "exact" else "close",
        cells["source"],
        cells["note"],
        cells["reviewed_by"],
    )
