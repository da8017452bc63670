"""What an objective reads from a batch beside ECGs and texts."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ecgclip_jax.contracts import Batch
from ecgclip_jax.objectives.reference import at_least_float32
from ecgclip_jax.spec.errors import UserError


class MissingColumnError(UserError):
    """A batch that lacks what its objective learns from."""


def known_values(batch: Batch, name: str, kind: str) -> tuple[Array, Bool[Array, "..."]]:
    """A named array of the batch as numbers, and which of them are known; an unknown one is 0.

    Raises:
        MissingColumnError: the batch has no such array.
    """
    if name not in batch.extras:
        raise MissingColumnError(
            f"objective {kind!r} expects {name!r} with every record and found only "
            f"{', '.join(sorted(batch.extras)) or 'nothing'}: train on a cohort that has it, or with another objective"
        )
    values, present = at_least_float32(batch.extras[name]), batch.extras_present[name]
    return jnp.where(present, values, 0), present
