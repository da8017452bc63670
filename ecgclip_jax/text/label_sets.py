"""Label sets of published evaluations as named views on a record's codes: classes in order, rule, source, defects.

A label set says which classes a record has, where that is known, and whether the record belongs to the set at all.
Published sets have defects that change published numbers; they are named in `known_defects`, and where a set is
reproduced with its defects its name says so (`csn/merl-published`). Tables: `data/label_sets.csv` and `.toml`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from jaxtyping import Bool

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.code_tables import read_table

Rule = Literal["any_class", "any_code", "all_codes", "merl_substring"]


class LabelSetError(UserError):
    """A label set that is not there, or codes that do not fit it."""


@dataclass(frozen=True)
class LabelClass:
    """One class: the codes of which any one makes it positive, and the concepts whose prompts ask for it."""

    name: str
    codes: frozenset[str]
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class RecordLabels:
    """What one record has. Outside `known`, `positive` is False and says nothing."""

    positive: Bool[np.ndarray, " classes"]
    known: Bool[np.ndarray, " classes"]
    belongs: bool
    """False: the set leaves the record out, and nothing is known."""


@dataclass(frozen=True)
class LabelSet:
    """A named view on label codes of one vocabulary."""

    name: str
    vocabulary: str
    classes: tuple[LabelClass, ...]
    rule: Rule
    source: str
    known_defects: tuple[str, ...]

    def labels_of(
        self, codes: Sequence[str], values: Sequence[float] = (), *, minimum_likelihood: float = 0.0
    ) -> RecordLabels:
        """Classes of a record from its codes.

        Args:
            codes: the record's codes, of `vocabulary`, verbatim.
            values: one likelihood in percent per code, 0 = not stated; none at all counts as stated.
            minimum_likelihood: a class that is stated only below it, but above 0, becomes unknown. At 0, the published
                convention, every stated code counts.

        Raises:
            LabelSetError: as many values as codes were expected.
        """
        if values and len(values) != len(codes):
            raise LabelSetError(f"{self.name}: expected one value per code, found {len(values)} for {len(codes)}")
        if self.rule == "merl_substring":
            return self._merl(codes)
        sure = {c for c, v in zip(codes, values or [0.0] * len(codes), strict=True) if not 0 < v < minimum_likelihood}
        stated = np.array([not c.codes.isdisjoint(codes) for c in self.classes])
        positive = np.array([not c.codes.isdisjoint(sure) for c in self.classes])
        belongs = bool(codes) if self.rule == "any_code" else bool(stated.any())
        if self.rule == "all_codes":
            belongs = belongs and frozenset(codes) <= frozenset[str]().union(*(c.codes for c in self.classes))
        return RecordLabels(positive & belongs, (positive | ~stated) & belongs, belongs)

    def _merl(self, codes: Sequence[str]) -> RecordLabels:
        """MERL's CSN labels: `acronym in "1AVB,CCR"`; a record with an unknown code is dropped.

        Source: finetune/preprocess.ipynb of the released code. That a record must have a class is inferred from the
        shipped files (all but two of 23,026 have one), whose filtering the notebook does not show.
        """
        acronyms = first_acronyms()
        text = ",".join(acronyms.get(code, "") for code in codes)
        found = np.array([c.name in text for c in self.classes])
        belongs = bool(found.any()) and all(code in acronyms for code in codes)
        return RecordLabels(found & belongs, np.full(len(found), belongs), belongs)


@cache
def first_acronyms() -> dict[str, str]:
    """SNOMED code → the first acronym that ConditionNames_SNOMED-CT.csv of ecg-arrhythmia 1.0.0 gives it."""
    acronyms: dict[str, str] = {}
    for row in read_table("csn_acronyms.csv"):
        acronyms.setdefault(row["snomed"], row["acronym"])
    return acronyms


@cache
def label_set_names() -> tuple[str, ...]:
    """All label sets, in the table's order."""
    return tuple(_frames())


@cache
def label_set(name: str) -> LabelSet:
    """A label set by name.

    Raises:
        LabelSetError: there is none of that name; near names are given.
    """
    if name not in label_set_names():
        near = difflib.get_close_matches(name, label_set_names(), n=3) or label_set_names()
        raise LabelSetError(f"there is no label set {name!r}; near it: {', '.join(near)}")
    frame = _frames()[name]
    classes = tuple(
        LabelClass(row["class"], frozenset(row["codes"].split()), tuple(row["concepts"].split()))
        for row in read_table("label_sets.csv")
        if row["label_set"] == name
    )
    return LabelSet(name, frame["vocabulary"], classes, frame["rule"], frame["source"], tuple(frame["known_defects"]))


@cache
def _frames() -> dict[str, dict]:
    return tomllib.loads((resources.files("ecgclip_jax.text") / "data" / "label_sets.toml").read_text("utf-8"))
