"""What a loader's worker process does, and no more: it reads waveforms by row.

It imports neither jax nor transformers, so that a worker starts fast and stays small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int32

from ecgclip_jax.data.order import GlobalOrder
from ecgclip_jax.data.sources import WaveformReader
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES


@dataclass(frozen=True, eq=False)
class RecordReader:
    """Waveforms of a run's records, whatever cohort they lie in; small enough to be sent to a worker process."""

    readers: tuple[WaveformReader, ...]
    source: Int32[np.ndarray, " records"]
    shard_row: Int32[np.ndarray, " records"]

    def read(self, rows: Int32[np.ndarray, " batch"]) -> Int16[np.ndarray, "batch time lead"]:
        """Stored microvolts of some records, in their order."""
        if len(self.readers) == 1:
            return self.readers[0].read(self.shard_row[rows].tolist())
        ecg_uv = np.empty((len(rows), STORED_SAMPLES, len(STORED_LEADS)), np.int16)
        for number, reader in enumerate(self.readers):
            here = np.flatnonzero(self.source[rows] == number)
            if len(here):
                ecg_uv[here] = reader.read(self.shard_row[rows[here]].tolist())
        return ecg_uv


@dataclass(frozen=True, eq=False)
class ReadStep:
    """Waveforms of this process's rows of a step; sent to the workers."""

    order: GlobalOrder
    local: Int32[np.ndarray, " batch_local"]
    reader: RecordReader

    def __call__(self, step: int) -> Int16[np.ndarray, "batch time lead"]:
        """Stored microvolts of the local rows of global batch `step`."""
        return self.reader.read(self.order.rows(step)[self.local])
