"""From the loader to the mesh: the next global batch is on its way while the device works on the last one.

A step is dispatched, not waited for: while the device runs it, the loop takes the next batch from the loader, sends it,
and dispatches the step after. So two batches are on the device at a time (double buffering), and reading, sending and
computing overlap. What time is lost all the same is measured here.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ecgclip_jax.contracts import Batch, TextRows, TextTokens, TextVectors
from ecgclip_jax.data.packing import pack_texts
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.parallel.host import batch_sharding, replicated, to_global
from ecgclip_jax.training.resident import ResidentCohort
from ecgclip_jax.training.text_cache import TextCache


class Feed:
    """Global batches of a run on the mesh, and how long the device waited for them."""

    def __init__(
        self,
        pipeline: TrainPipeline,
        mesh: Mesh,
        micro_batches: int,
        texts: TextCache | None,
        resident: ResidentCohort | None = None,
        packed_rows_per_text: float | None = None,
    ) -> None:
        """With `texts` the batches' rows of the table of texts become the text tower's outputs; with `resident` (and a
        resident pipeline) waveforms, and these outputs, are gathered on the devices; with `packed_rows_per_text` tokens
        share rows."""
        self._pipeline, self._mesh, self._micro_batches = pipeline, mesh, micro_batches
        self._texts, self._resident, self._packed = texts, resident, packed_rows_per_text
        self._cut_short = 0
        if texts is not None and resident is not None:
            self._vectors = jax.device_put(texts.vectors, replicated(mesh))
            rows = batch_sharding(mesh, micro_batches)
            self._take_texts = jax.jit(
                lambda vectors, index: vectors[index].astype(jnp.float32),
                in_shardings=(replicated(mesh), rows),
                out_shardings=rows,
            )
        self._newest: jax.Array | None = None
        self._waited_s = 0.0

    def batches(self, start_step: int) -> Generator[Batch, None, None]:
        """Global batches `start_step`, `start_step` + 1, … without end; closing the generator ends reading ahead."""
        with closing(self._pipeline.batches(start_step)) as batches:
            while True:
                began_s = time.monotonic()
                batch = self._on_mesh(next(batches))
                if self._newest is None or self._newest.is_ready():  # type: ignore[attr-defined]
                    self._waited_s += time.monotonic() - began_s
                yield batch

    def note(self, result: jax.Array) -> None:
        """Takes a result of the newest step: while it is not ready, the device has work and waits for nothing."""
        self._newest = result

    def waited_s(self) -> float:
        """Seconds since the last call in which a batch was prepared and the device was out of work at the end of it.

        An upper bound of the time that the device lost: it may have run out of work at the very end.
        """
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def cut_short(self) -> int:
        """Texts of this process since the last call that found no room in the packed rows and were cut short."""
        count, self._cut_short = self._cut_short, 0
        return count

    def _on_mesh(self, batch: Batch) -> Batch:
        if self._packed is not None and isinstance(batch.texts, TextTokens):
            packs = self._micro_batches * len(self._mesh.local_devices)
            texts, cut_short = pack_texts(batch.texts, packs, self._mesh.size, self._packed)
            batch, self._cut_short = replace(batch, texts=texts), self._cut_short + cut_short
        if self._resident is None:
            if self._texts is not None and isinstance(batch.texts, TextRows):
                batch = replace(batch, texts=self._texts.take(batch.texts))
            return to_global(batch, self._mesh, self._micro_batches)
        placed = self._resident.take(to_global(batch, self._mesh, self._micro_batches))
        if self._texts is not None and isinstance(placed.texts, TextRows):
            placed = replace(placed, texts=TextVectors(self._take_texts(self._vectors, placed.texts.index)))
        return placed
