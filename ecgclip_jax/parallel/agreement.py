"""What the processes of a job must agree on: facts before the first step, failures that must stop all, when to stop.

Everything here is a collective: all processes call it in the same order. With one process nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ecgclip_jax.parallel.host import batch_sharding, replicated
from ecgclip_jax.spec.errors import UserError

Json = Any
Result = TypeVar("Result")
_SHOWN = 5


class DisagreementError(UserError):
    """Processes that were started with different experiments, data or versions; the message names them."""


class PeerError(UserError):
    """Another process cannot go on; the message is its own."""


def exchange(value: Json) -> list[Json]:
    """What each process passed, by process."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def together(action: Callable[[], Result]) -> Result:
    """Every process does `action`; a user's error of one stops all of them, so that none waits for it in vain.

    Raises:
        UserError: this process's own.
        PeerError: another process's, of the first that had one.
    """
    error: UserError | None = None
    result: Result | None = None
    try:
        result = action()
    except UserError as raised:
        error = raised
    reasons = exchange(None if error is None else str(error))
    if error is not None:
        raise error
    for process, reason in enumerate(reasons):
        if reason is not None:
            raise PeerError(f"process {process} of {len(reasons)} stopped: {reason}")
    return result  # type: ignore[return-value]


def by_first_process(action: Callable[[], None]) -> None:
    """Process 0 does `action` and the others wait for it.

    Raises:
        UserError, PeerError: as `together`.
    """
    together(action if jax.process_index() == 0 else lambda: None)


def require_same(facts: Mapping[str, Json]) -> None:
    """Stops all processes if one has other facts than process 0.

    Raises:
        DisagreementError: names the processes, the facts and both values.
    """
    first, *others = exchange(dict(facts))
    clauses = []
    for process, theirs in enumerate(others, 1):
        for name in [name for name in first | theirs if first.get(name) != theirs.get(name)]:
            clauses.append(f"{name} is {theirs.get(name)!r} on process {process} and {first.get(name)!r} on process 0")
    if clauses:
        more = f"; and {len(clauses) - _SHOWN} more" if len(clauses) > _SHOWN else ""
        raise DisagreementError(
            f"the processes do not agree: {'; '.join(clauses[:_SHOWN])}{more}. Start all of them with the same "
            "command, files, data and versions"
        )


class Vote:
    """One small number of each process, of which all learn the largest, without waiting for the device.

    A vote is a collective in the queue behind the step; its result is read when that step is done anyway.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._local_devices = len(self._sharding.addressable_devices)
        self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def cast(self, number: int) -> jax.Array:
        """The largest `number` of all processes, int32, on the device."""
        ballots = np.full(self._local_devices, number, np.int32)
        largest: jax.Array = self._largest(jax.make_array_from_process_local_data(self._sharding, ballots))
        return largest
