"""Which patients' labels are used when few are: whole patients, nested, the same wherever they are drawn.

Builders freeze the first draw beside the data (`train-1pct.json`); evaluations take further draws by the same rule.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable


def person(record_id: str, patient_id: str) -> str:
    """Whom a record belongs to: his patient, or himself where the patient is unknown, in one name space."""
    return f"patient {patient_id}" if patient_id else f"record {record_id}"


def drawn_persons(persons: Collection[str], shares: Iterable[float], seed: int) -> dict[float, frozenset[str]]:
    """Nested draws of whole persons, by share; every draw has at least one.

    Their order is that of SHA-256 of seed and name: adding patients moves none, and another seed is another order.
    """
    ordered = sorted(set(persons), key=lambda name: hashlib.sha256(f"{seed}\x1f{name}".encode()).digest())
    return {share: frozenset(ordered[: math.ceil(share * len(ordered))]) for share in shares}
