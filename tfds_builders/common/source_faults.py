"""Faults that published cohorts have and share: what is plain is undone and said, what is suspected is only said.

Cutting off zeros that a container was filled up with loses nothing of the recording. A gain that a cohort is known to
have misprinted is a suspicion: the record keeps its values and carries the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode
from tfds_builders.common.audit import BuildReason

PADDING_MIN_S: Final = 0.1
"""All leads exactly zero together for a tenth of a second at an end: filled up. Shorter may be chance."""
MISPRINTED_GAINS_PER_MV: Final = (4880.0,)
"""Early headers of Georgia (Challenge 2020) state 4,880 units per mV where 1,000 are meant, corrected in August 2020;
mirrors still carry them. QRS complexes then look five times too small, which may just pass the amplitude check."""
MISSING_MEASUREMENTS: Final = frozenset({29999.0, -29999.0, 32767.0})
"""What carts write for "not measured" (MIMIC-IV-ECG's 29999; the ends of int16)."""
_CODE_SEPARATOR: Final = re.compile(r"[,;\s]+")


def without_zero_padding(record: ECGRecord) -> tuple[ECGRecord, tuple[str, ...]]:
    """The record without zeros at its ends, and the audit's reason if there were any.

    Raises:
        ECGReadError: `empty`, if nothing but zeros is left (CODE-15 %'s last row, empty traces).
    """
    signal_uv = record.signal_uv
    zero = _all_zero(signal_uv)
    alive = np.flatnonzero(~zero)
    if not alive.size:
        raise ECGReadError.because(
            ReasonCode.empty,
            record.record_id,
            expected="a signal",
            found=f"{len(zero)} samples, all of them zero or missing in every lead",
            remedy="It is a filler of the source's table: leave it out.",
        )
    least = PADDING_MIN_S * record.rate_hz
    start = int(alive[0]) if alive[0] >= least else 0
    stop = int(alive[-1]) + 1 if len(zero) - alive[-1] - 1 >= least else len(zero)
    if stop - start == len(zero):
        return record, ()
    return replace(record, samples=signal_uv[start:stop]), (BuildReason.zero_padding_removed.value,)


def _all_zero(signal_uv: Float32[np.ndarray, "time lead"]) -> Bool[np.ndarray, " time"]:
    """Where every lead is zero or missing."""
    return np.asarray(((signal_uv == 0) | np.isnan(signal_uv)).all(axis=1))


def suspected_gain(record: ECGRecord) -> tuple[str, ...]:
    """`gain_misprinted` for a record whose gain is one that is known to be wrong in published headers."""
    gain = 1000.0 / record.facts.resolution_uv
    known = any(abs(gain / wrong - 1) < 1e-6 for wrong in MISPRINTED_GAINS_PER_MV)
    return (BuildReason.gain_misprinted.value,) if known else ()


def measurement(cell: str, limits: tuple[float, float] = (-math.inf, math.inf)) -> float | None:
    """A machine's number; None for an empty cell, for what stands for "not measured", for words and beyond `limits`."""
    if not cell:  # most cells of most tables of measurements: an exception costs a microsecond
        return None
    try:
        number = float(cell)
    except ValueError:
        return None
    usable = math.isfinite(number) and number not in MISSING_MEASUREMENTS and limits[0] <= number <= limits[1]
    return number if usable else None


def measured(cells: Iterable[tuple[str, str]]) -> tuple[tuple[str, float], ...]:
    """Names and numbers of the cells that hold a measurement."""
    numbers = ((name, measurement(cell)) for name, cell in cells)
    return tuple((name, number) for name, number in numbers if number is not None)


def split_codes(text: str) -> tuple[str, ...]:
    """The codes of a list such as `#Dx: 426783006,,59118001,`: no empty ones, each once, in the source's order."""
    return tuple(dict.fromkeys(code for code in _CODE_SEPARATOR.split(text) if code))


@dataclass(frozen=True, slots=True)
class MatchedIds:
    """Two lists of the same records in orders of their own."""

    position: dict[str, int]
    """Id → position in the second list, for the ids of both."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    repeated: tuple[str, ...]
    """Ids that stand twice in the second list; the first of them counts."""


def match_ids(first: Collection[str], second: Iterable[str]) -> MatchedIds:
    """Where the ids of `first` (a table) stand in `second` (an array file): records are joined by id, never by row."""
    position: dict[str, int] = {}
    repeated: dict[str, None] = {}
    for number, record_id in enumerate(second):
        if position.setdefault(record_id, number) != number:
            repeated[record_id] = None
    wanted = set(first)
    return MatchedIds(
        {i: n for i, n in position.items() if i in wanted},
        tuple(i for i in dict.fromkeys(first) if i not in position),
        tuple(i for i in position if i not in wanted),
        tuple(repeated),
    )
