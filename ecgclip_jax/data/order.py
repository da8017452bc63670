"""The global order of a run: which records stand in batch g, as a pure function of seed, epoch and index.

No iterator state exists. The order rests on numpy's Philox bit stream and seed sequences, whose output numpy
guarantees across versions (NEP 19), and on a stable sort, not on a shuffle whose algorithm a library may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int32

from ecgclip_jax.spec.errors import UserError

_WITHIN_SOURCE, _WITHIN_EPOCH = 1, 2


def permutation(n: int, *entropy: int) -> Int32[np.ndarray, " n"]:
    """A permutation of 0 … n-1 that depends on `entropy` alone."""
    bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(n)
    return np.argsort(bits, kind="stable").astype(np.int32)


def draws_per_epoch(sizes: tuple[int, ...], weights: tuple[float, ...]) -> tuple[int, ...]:
    """How many records each source gives to an epoch, in all as many as there are records.

    A weight belongs to each record of a source: equal weights give every record once, and a record of weight 2 is
    drawn twice as often as one of weight 1. Fractions are settled by largest remainder, ties by the earlier source.
    """
    total = sum(sizes)
    mass = np.asarray(sizes, np.float64) * np.asarray(weights, np.float64)
    exact = total * mass / mass.sum()
    draws = np.floor(exact).astype(int)
    short = total - int(draws.sum())
    draws[np.argsort(-(exact - draws), kind="stable")[:short]] += 1
    return tuple(int(d) for d in draws)


def local_rows(
    batch_global: int, process_index: int = 0, process_count: int = 1, micro_batches: int = 1
) -> Int32[np.ndarray, " batch_local"]:
    """Which rows of a global batch a process reads, in the order in which it holds them.

    Process p of n takes rows [p·b/n, (p+1)·b/n) of each micro-batch of b = B/M consecutive rows, one after the other:
    so every device holds a part of every micro-batch, and no row moves between devices.

    Raises:
        UserError: a micro-batch that does not divide by the processes.
    """
    if batch_global % (micro_batches * process_count):
        micro = f" in {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise UserError(f"data.batch_global {batch_global}{micro} must divide by the {process_count} processes")
    rows = np.arange(batch_global, dtype=np.int32).reshape(micro_batches, process_count, -1)
    return rows[:, process_index].reshape(-1)


@dataclass(frozen=True)
class GlobalOrder:
    """The endless sequence of record rows. Rows of source s are the `sizes[s]` rows after those of source s - 1.

    Every epoch is shuffled anew and cut to whole batches: of E rows the last E mod B of its shuffled order are left
    out (other ones each epoch), so that no batch straddles epochs. Batch g is rows [gB, (g+1)B) of what is left.
    With equal weights a batch never holds a record twice; a record that is drawn more often may stand twice in one.
    """

    seed: int
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    batch_global: int

    def __post_init__(self) -> None:
        if sum(self.sizes) < self.batch_global:
            raise UserError(
                f"data.batch_global {self.batch_global} is larger than the {sum(self.sizes)} records of an epoch; "
                "make it smaller, or add sources"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return sum(self.sizes) // self.batch_global

    def rows(self, step: int) -> Int32[np.ndarray, " batch_global"]:
        """Record rows of global batch `step`, from 0."""
        if step < 0:
            raise ValueError(f"a step counts from 0, got {step}")
        epoch, within = divmod(step, self.steps_per_epoch)
        return _epoch_rows(self, epoch)[within * self.batch_global : (within + 1) * self.batch_global]


@lru_cache(maxsize=4)
def _epoch_rows(order: GlobalOrder, epoch: int) -> Int32[np.ndarray, " rows"]:
    drawn, first_row = [], 0
    for source, (size, draws) in enumerate(zip(order.sizes, draws_per_epoch(order.sizes, order.weights), strict=True)):
        # A source is an endless repetition of its own fixed permutation; each epoch takes the next `draws` of it.
        position = np.arange(epoch * draws, (epoch + 1) * draws, dtype=np.int64) % max(size, 1)
        drawn.append(first_row + permutation(size, order.seed, _WITHIN_SOURCE, source)[position])
        first_row += size
    rows = np.concatenate(drawn)
    shuffled: np.ndarray = rows[permutation(len(rows), order.seed, _WITHIN_EPOCH, epoch)].astype(np.int32)
    return shuffled
