"""The small language in which `task_truth.csv` says how a record's truth about a task is read off its cohort.

| rule | truth |
|---|---|
| `codes A B` | positive with any of these codes, negative with only others, unknown without any code |
| `codes A where x >= 1` | the same, and negative without any code, where the measurement x says that codes were given |
| `x <= 45` | a measurement against a threshold; unknown where it was not measured |
| `x > 58 \\| female > 52` | the same with another threshold for women; unknown where the sex is |
| `x/y >= 1.5` | the largest of several measurements |
| `any_of T U` | positive if any of the tasks is, negative if all are, unknown otherwise |
| `column c`, `measurement m` | the number itself, for regression |
| `survival t e` | columns of the time under observation and whether the event ended it |
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


class RegistryError(ValueError):
    """A registry of tasks that contradicts itself or its format; the message names file and row."""


COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
)


@dataclass(frozen=True)
class Threshold:
    """The largest of `measurements` against a number, with a number of its own for women."""

    measurements: tuple[str, ...]
    comparison: str
    value: float
    value_female: float


@dataclass(frozen=True)
class Codes:
    """Any of some codes. `asked` says of whom codes were collected, so that no code means no; None: nobody tells."""

    codes: frozenset[str]
    asked: Threshold | None


@dataclass(frozen=True)
class AnyOf:
    """A composite of other tasks."""

    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A number to predict: a column of the records table or a measurement."""

    name: str


@dataclass(frozen=True)
class Survival:
    """Columns of time and event."""

    years: str
    event: str


Rule = Threshold | Codes | AnyOf | Number | Survival

_THRESHOLD = re.compile(r"([a-z0-9_]+(?:/[a-z0-9_]+)*) (<=|<|>=|>) ([0-9.]+)(?: \| female (<=|<|>=|>) ([0-9.]+))?")


def parse_rule(text: str) -> Rule:
    """A rule of `task_truth.csv`.

    Raises:
        RegistryError: a text that is none of the forms above.
    """
    word, _, rest = text.partition(" ")
    names = rest.split()
    if word == "codes" and rest:
        codes, _, asked = rest.partition(" where ")
        return Codes(frozenset(codes.split()), _threshold(asked) if asked else None)
    if word == "any_of" and len(names) > 1:
        return AnyOf(tuple(names))
    if word in ("column", "measurement") and len(names) == 1:
        return Number(names[0])
    if word == "survival" and len(names) == 2:
        return Survival(names[0], names[1])
    return _threshold(text)


def _threshold(text: str) -> Threshold:
    found = _THRESHOLD.fullmatch(text)
    if found is None or found[4] not in (None, found[2]):
        raise RegistryError(f"task_truth.csv: no rule is {text!r}; evaluation/truth_rules.py tells the forms")
    value = float(found[3])
    return Threshold(tuple(found[1].split("/")), found[2], value, float(found[5] or value))
