"""The loader: waveforms read ahead by grain, in this process or in workers; the order depends on the step alone.

grain's `MapDataset` runs over steps, not over records: an element is this process's part of one global batch, read
with one call per cohort. The position is the step, so nothing of an iterator needs saving, and the number of
processes and workers may change at any resume.
"""

from __future__ import annotations

import atexit
import gc
import itertools
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, cast

import absl.flags
import grain
import numpy as np
from jaxtyping import Int32

from ecgclip_jax.contracts import Batch, TextTokens
from ecgclip_jax.data.batch import BatchBuilder, Extras, tokenize_texts
from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.data.order import GlobalOrder, local_rows
from ecgclip_jax.data.reading import ReadStep, RecordReader
from ecgclip_jax.data.statements import StatementSampler
from ecgclip_jax.data.tags import make_tag_sampler
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.signal import STORED_LEADS
from ecgclip_jax.text.tokenizer import TextTokenizer

_READ_THREADS = 2
_LAST_STEP = 2**31 - 1


class TrainPipeline:
    """Global batches of a run, as the rows that one of `process_count` processes holds of them.

    A process holds the rows `data.order.local_rows` of each global batch, in that order. `tokenizer` None gives batches
    with rows of the table of texts instead of tokens. With `workers` > 0 waveforms are read in that many spawned
    processes (a script then needs `if __name__ == "__main__"`), else in threads of this one. `targets` become extras of
    the batches, see `ecgclip_jax.data.targets`.

    A `resident` pipeline reads no waveforms (`ecg_uv` has no samples): they lie on the devices already.

    With `data.texts_per_ecg` above 1 the texts are drawn statements, and without a tokenizer rows of the table of
    statements (`ecgclip_jax.data.tags`).

    Raises:
        UserError: a batch larger than an epoch, or one that does not divide by the processes.
    """

    def __init__(
        self,
        index: RunIndex,
        tokenizer: TextTokenizer | None,
        targets: Extras | None = None,
        *,
        max_tokens: int,
        batch_global: int,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        prefetch_batches: int = 4,
        micro_batches: int = 1,
        resident: bool = False,
    ) -> None:
        self._local = local_rows(batch_global, process_index, process_count, micro_batches)
        weights = tuple(source.weight for source in index.data.sources)
        self.order = GlobalOrder(
            index.seed, index.sizes, weights, batch_global, index.data.shuffle_shards, micro_batches
        )
        several = index.data.texts_per_ecg > 1
        self._tags = make_tag_sampler(index, tokenizer, max_tokens) if several else None
        tokens = None if tokenizer is None or several else tokenize_texts(tokenizer, index.texts, max_tokens)
        self._builder = BatchBuilder(index, tokens, targets)
        self._index_texts, self._text_row, self._statements = index.texts, index.text_row, None
        if tokenizer is not None and tokens is not None and index.data.statement_keep_probability < 1:
            keep = index.data.statement_keep_probability
            self._statements = StatementSampler.of(tokenizer, tokens, keep, index.seed)
        self.reader = RecordReader(tuple(c.waveforms for c in index.cohorts), index.source, index.shard_row)
        self._workers, self._prefetch, self._resident = workers, prefetch_batches, resident

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left of the epoch's order is not trained on in it."""
        return self.order.steps_per_epoch

    @property
    def texts(self) -> tuple[str, ...]:
        """The distinct texts that `TextRows` of its batches are rows of: whole reports, or statements."""
        return self._index_texts if self._tags is None else self._tags.table.texts

    def batch_rows(self, step: int) -> Int32[np.ndarray, " batch_global"]:
        """Index rows of all records of a global batch: which ECGs a step was made of."""
        return self.order.rows(step)

    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """This process's rows of global batches `start_step`, `start_step` + 1, … without end; numpy leaves.

        Closing the generator (or dropping it) ends reading ahead and the workers.
        """
        if self._resident:
            for step in itertools.count(start_step):
                rows = self.order.rows(step)
                nothing = np.empty((len(self._local), 0, len(STORED_LEADS)), np.int16)
                yield self._with_drawn_texts(step, rows, self._builder.build(rows[self._local], nothing))
        read = ReadStep(self.order, self._local, self.reader)
        stream = _ReadAhead(read, start_step, _LAST_STEP, workers=self._workers, prefetch=self._prefetch)
        try:
            for step, ecg_uv in enumerate(stream, start_step):
                rows = self.order.rows(step)
                yield self._with_drawn_texts(step, rows, self._builder.build(rows[self._local], ecg_uv))
        finally:
            stream.close()

    def _with_drawn_texts(self, step: int, rows: Int32[np.ndarray, " batch_global"], batch: Batch) -> Batch:
        """The batch with the texts that the run draws in this step, if it does; equal drawn texts are one group."""
        if self._tags is not None:
            texts, groups, valid = (cast("Any", part) for part in self._tags.draw(step, rows, self._local))
            return replace(batch, texts=texts, text_group=groups, text_valid=valid)
        if self._statements is None:
            return batch
        drawn = self._statements.sample(step, self._text_row[rows])
        ids, mask, group = (cast("Any", part[self._local]) for part in drawn)
        return replace(batch, texts=TextTokens(ids[:, None], mask[:, None]), text_group=group[:, None])


class LoaderError(UserError):
    """A loader that cannot go on; the message says why and what to do."""


class _ReadAhead(Iterator[np.ndarray]):
    """`read(start)`, `read(start + 1)`, … in order, up to `prefetch` of them ahead of the consumer."""

    def __init__(
        self, read: Callable[[int], np.ndarray], start: int, stop: int, *, workers: int, prefetch: int
    ) -> None:
        options = grain.ReadOptions(num_threads=min(_READ_THREADS, prefetch), prefetch_buffer_size=prefetch)
        elements = grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options)
        if workers:
            if not absl.flags.FLAGS.is_parsed():
                # grain's workers read absl flags, which only an absl program parses.
                absl.flags.FLAGS.mark_as_parsed()
            ahead = -(-prefetch // workers)
            elements = elements.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
            )
        self._workers = workers
        self._iterator = iter(elements)
        # A program may end with a stream still open; grain's threads and processes must end before its modules do.
        atexit.register(self.close)

    def __next__(self) -> np.ndarray:
        element = self._next()
        # Out of the workers' shared memory, which is freed only when nobody holds the array any more.
        return np.array(element) if self._workers else element

    def _next(self) -> np.ndarray:
        try:
            element: np.ndarray = next(self._iterator)
        except RuntimeError as error:
            # grain watches its workers and says so when one is gone; it does not start another.
            if self._workers and "terminated unexpectedly" in str(error):
                raise LoaderError(
                    f"a worker that reads ECGs was lost ({error}); it was killed, most often for lack of memory: lower "
                    "data.workers or data.prefetch_batches, or read in threads (data.workers 0), and start the same "
                    "command again"
                ) from error
            raise
        return element

    def close(self) -> None:
        """Ends threads and workers; may be called again."""
        atexit.unregister(self.close)
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None
            gc.collect()  # grain's iterators hold each other; left to the interpreter's end they complain
