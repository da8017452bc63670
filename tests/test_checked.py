"""The run-time check of annotations, which every other test relies on, refuses what it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float32, TypeCheckError
from support.checked import checked, decorator

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

PAIR, TRIPLE = np.zeros(2, np.float32), np.zeros(3, np.float32)


@checked
def total(left: Float32[np.ndarray, "n"], right: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    return (left + right)[: 3 if left[0] == 0 else 1]


@decorator(typechecker=None)
@dataclass
class Lead:
    name: str
    ecg_mv: Float32[np.ndarray, "time"]


@checked
def numbers(until: int) -> Iterator[int]:
    yield from range(until)


@checked
def anything(of: Unknown, times: int = 1) -> Unknown:
    return of * times


def test_axes_of_one_name_have_one_size_within_a_call() -> None:
    assert total(PAIR, PAIR).shape == (2,)
    assert total(TRIPLE, TRIPLE).shape == (3,)
    with pytest.raises(BeartypeCallHintViolation, match="n is 3 which does not equal the existing value of 2"):
        total(PAIR, TRIPLE)
    with pytest.raises(BeartypeCallHintViolation, match="dimension n is 1 which does not equal"):
        total(PAIR + 1, PAIR)
    with pytest.raises(BeartypeCallHintViolation):
        total(PAIR.astype(np.float64), PAIR)


def test_a_call_within_a_call_has_axes_of_its_own() -> None:
    @checked
    def outer(ecg: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
        total(PAIR, PAIR)
        return ecg

    assert outer(TRIPLE) is TRIPLE


def test_dataclasses_generators_and_names_for_type_checkers() -> None:
    assert Lead("II", TRIPLE).ecg_mv is TRIPLE
    with pytest.raises(BeartypeCallHintViolation):
        Lead("II", TRIPLE.astype(int))
    assert list(numbers(3)) == [0, 1, 2]
    with pytest.raises(TypeCheckError):
        numbers("3")  # before any value is asked for
    assert anything("ab", 2) == "abab"
    with pytest.raises(BeartypeCallHintViolation):
        anything("ab", "2")


def test_only_functions_of_arrays_have_a_scope() -> None:
    def of_many(named: dict[str, list[Float32[np.ndarray, "n"]] | None]) -> None: ...
    def of_words(words: list[str], make: Callable[[int], Any]) -> tuple[str, ...] | None: ...
    def maker(make: Callable[[Float32[np.ndarray, "n"]], str]) -> str: ...

    scoped = [checked(function).__code__.co_name == "with_axes" for function in (of_many, of_words, maker)]
    assert scoped == [True, False, True]
    with pytest.raises(BeartypeCallHintViolation):
        checked(of_words)([1], len)  # type: ignore[list-item]
