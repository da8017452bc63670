"""Which cohorts hold the same recordings: pre-training on one has seen the other.

The Challenge 2021 is a collection: it contains CPSC2018, PTB-XL, most of PTB and INCART, and the whole of
Chapman-Shaoxing-Ningbo. The table, `data/shared_records.csv`, says which part shares what and how ids translate, so
that builders can note it and an overlap check need not rely on equal waveforms (units and lengths differ by copy).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ecgclip_jax.text.code_tables import read_table

_PTB_XL_IN_CHALLENGE = "HR + five digits = ecg_id"


@dataclass(frozen=True)
class SharedRecords:
    """A part of `cohort` that holds recordings of `other`."""

    cohort: str
    part: str
    """Folder or part of `cohort`; empty: all of it."""
    other: str
    other_part: str
    same_id: str
    """`yes`, `no` (unknown), or how the ids translate."""
    n_records: int | None
    """None: not stated in the source."""
    certainty: str
    source: str
    note: str

    def other_id(self, record_id: str) -> str | None:
        """The id that a recording of `cohort` has in `other`; None where that is unknown."""
        if self.same_id == "yes":
            return record_id
        if self.same_id == _PTB_XL_IN_CHALLENGE and record_id.startswith("HR") and record_id[2:].isdigit():
            return str(int(record_id[2:]))
        return None

    def own_id(self, record_id: str) -> str | None:
        """The id that a recording of `other` has in `cohort`; None where that is unknown."""
        if self.same_id == "yes":
            return record_id
        if self.same_id == _PTB_XL_IN_CHALLENGE and record_id.isdigit():
            return f"HR{int(record_id):05d}"
        return None


@cache
def shared_records() -> tuple[SharedRecords, ...]:
    """The whole table."""
    return tuple(
        SharedRecords(n_records=int(n) if (n := row.pop("n_records")) else None, **row)
        for row in read_table("shared_records.csv")
    )


def cohorts_sharing_records(cohort: str) -> dict[str, tuple[str, ...]]:
    """Cohorts that share recordings with `cohort`: which parts of the holder, or through which third cohort."""
    found: dict[str, tuple[str, ...]] = {}
    for row in shared_records():
        if cohort in (row.cohort, row.other):
            other = row.other if cohort == row.cohort else row.cohort
            found[other] = (*found.get(other, ()), row.part or "all of it")
    held = {row.other for row in shared_records() if row.cohort == cohort}
    for row in shared_records():
        if row.other in held and row.cohort != cohort:
            found.setdefault(row.cohort, (f"through {row.other}",))
    return found


def renamed(cohort: str, other: str, record_id: str) -> str | None:
    """The id that a recording of `cohort` would have in `other` if it is there; None where nothing is known of that.

    A cohort that is one part of another, as `challenge2021_georgia`, is looked up as the whole.
    """
    pair = _in_table(cohort), _in_table(other)
    for row in shared_records():
        if (row.cohort, row.other) == pair and (found := row.other_id(record_id)):
            return found
        if (row.other, row.cohort) == pair and (found := row.own_id(record_id)):
            return found
    return None


@cache
def _in_table(cohort: str) -> str:
    """The cohort of the table that `cohort` is, or is a part of."""
    names = {name for row in shared_records() for name in (row.cohort, row.other)}
    whole = [name for name in names if cohort.startswith(f"{name}_")]
    return cohort if cohort in names else max(whole, key=len, default=cohort)
