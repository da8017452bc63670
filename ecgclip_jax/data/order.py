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

    With `shards` S > 1 the records lie in S fixed parts (`shard_records`), each with an order of its own, and a batch
    takes B / S rows of each. They stand shard after shard within each of `micro_batches`, so that a device that holds
    some of the shards holds all that its rows of any batch are made of.
    """

    seed: int
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    batch_global: int
    shards: int = 1
    micro_batches: int = 1

    def __post_init__(self) -> None:
        if sum(self.sizes) < self.batch_global:
            raise UserError(
                f"data.batch_global {self.batch_global} is larger than the {sum(self.sizes)} records of an epoch; "
                "make it smaller, or add sources"
            )
        if self.batch_global % (self.shards * self.micro_batches):
            raise UserError(
                f"data.batch_global {self.batch_global} must divide by data.shuffle_shards {self.shards}"
                + (f" times memory.micro_batches {self.micro_batches}" if self.micro_batches > 1 else "")
            )
        if self.steps_per_epoch == 0:
            raise UserError(
                f"the {sum(self.sizes)} records in data.shuffle_shards {self.shards} parts do not give a batch of "
                f"{self.batch_global}; make one of them smaller"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        smallest = min(len(records) for records in shard_records(self))
        return smallest // (self.batch_global // self.shards)

    def rows(self, step: int) -> Int32[np.ndarray, " batch_global"]:
        """Record rows of global batch `step`, from 0."""
        if step < 0:
            raise ValueError(f"a step counts from 0, got {step}")
        epoch, within = divmod(step, self.steps_per_epoch)
        part = self.batch_global // self.shards
        drawn = [rows[within * part : (within + 1) * part] for rows in _epoch_rows(self, epoch)]
        by_shard = np.stack(drawn).reshape(self.shards, self.micro_batches, -1)
        return by_shard.swapaxes(0, 1).reshape(-1)


@lru_cache(maxsize=4)
def shard_records(order: GlobalOrder) -> tuple[Int32[np.ndarray, " records"], ...]:
    """The records of each shard: every S-th of all sources' fixed permutations one after the other, so that each shard
    holds its share of each source."""
    return tuple(np.concatenate(_members(order, shard)) for shard in range(order.shards))


def _members(order: GlobalOrder, shard: int) -> list[Int32[np.ndarray, " records"]]:
    """The records of a shard by source, each source's in its fixed order."""
    members, first_row = [], 0
    for source, size in enumerate(order.sizes):
        members.append(
            _fixed_order(size, first_row, order.seed, source)[(shard - first_row) % order.shards :: order.shards]
        )
        first_row += size
    return members


@lru_cache(maxsize=16)
def _fixed_order(size: int, first_row: int, seed: int, source: int) -> Int32[np.ndarray, " records"]:
    return (first_row + permutation(size, seed, _WITHIN_SOURCE, source)).astype(np.int32)


@lru_cache(maxsize=4)
def _epoch_rows(order: GlobalOrder, epoch: int) -> tuple[Int32[np.ndarray, " rows"], ...]:
    """The shuffled rows of an epoch, of each shard."""
    return tuple(_shard_epoch(order, shard, epoch) for shard in range(order.shards))


def _shard_epoch(order: GlobalOrder, shard: int, epoch: int) -> Int32[np.ndarray, " rows"]:
    members = _members(order, shard)
    drawn = []
    for own, draws in zip(members, draws_per_epoch(tuple(map(len, members)), order.weights), strict=True):
        # A source is an endless repetition of its own fixed permutation; each epoch takes the next `draws` of it.
        position = np.arange(epoch * draws, (epoch + 1) * draws, dtype=np.int64) % max(len(own), 1)
        drawn.append(own[position])
    rows = np.concatenate(drawn)
    stream = (order.seed, _WITHIN_EPOCH, epoch) if order.shards == 1 else (order.seed, _WITHIN_EPOCH, epoch, shard)
    shuffled: np.ndarray = rows[permutation(len(rows), *stream)].astype(np.int32)
    return shuffled
