"""What an audit may say: everything of an open cohort; of others no original id, no text, no small cell.

Audits and cards are what people send around. The dataset itself is not touched by this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ecgclip_jax.spec.pseudonyms import make_key, pseudonym
from tfds_builders.common.audit import AuditRow
from tfds_builders.common.cohort import CohortFacts

SMALLEST_CELL: Final = 10
SUPPRESSED: Final = f"<{SMALLEST_CELL}"


def disclosable_counts(value: Any, facts: CohortFacts) -> Any:
    """Nested counts as they may be written: above access class `open` whole numbers from 1 to 9 become "<10"."""
    if facts.access == "open":
        return value
    if isinstance(value, dict):
        return {name: disclosable_counts(item, facts) for name, item in value.items()}
    if isinstance(value, list):
        return [disclosable_counts(item, facts) for item in value]
    small = isinstance(value, int) and not isinstance(value, bool) and 0 < value < SMALLEST_CELL
    return SUPPRESSED if small else value


def disclosable_rows(rows: Iterable[AuditRow], facts: CohortFacts, data_dir: Path) -> Iterator[AuditRow]:
    """Audit rows as they may be written: above access class `open` ids are keyed pseudonyms and details are left out.

    A detail can quote a path or a cell of the source; who has the source finds the row by its index.
    """
    if facts.access == "open":
        yield from rows
        return
    key = make_key(data_dir)
    for row in rows:
        name = pseudonym(key, facts.name, "record", row.record_id) if row.record_id else ""
        yield replace(row, record_id=name, detail="")
