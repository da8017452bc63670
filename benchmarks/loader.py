"""Loader: ECGs per second of `TrainPipeline` with 0 and 2 workers, against TFDS's data source in a grain DataLoader.

Every arm reads the same prepared cohort in shuffled order, tokenises (or looks up) its reports and gives batches of
64 numpy ECGs. An arm goes on where it stopped, so the start of workers is not timed; its sample is long enough that
what it had read ahead meanwhile (at most 500 ECGs, the DataLoader's buffer) counts little, and in favour of the peer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import absl.flags
import grain
import numpy as np
import tensorflow_datasets as tfds

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.text.tokenizer import TextTokenizer, encode_texts, train_wordpiece
from tfds_builders.common.build import build
from tfds_builders.synthetic_ecg.cohort import SyntheticEcg

BATCH = 64
MAX_TOKENS = 64
_WORKERS = (0, 2)
_BATCHES_AT_ONCE = 8


class PlainRecord(grain.transforms.Map):
    """What a first version of a loader does with a TFDS record: takes the waveform and tokenises the report."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer

    def map(self, element: dict[str, Any]) -> dict[str, np.ndarray]:
        """One record as arrays."""
        ids, mask = encode_texts(self._tokenizer, [element["report_clean"].decode()], MAX_TOKENS)
        return {"ecg_uv": element["ecg_uv"], "ids": ids[0], "mask": mask[0]}


def plain_batches(folder: Path, tokenizer: TextTokenizer, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """The peer: TFDS data source, shuffling sampler, DataLoader."""
    source = tfds.builder_from_directory(str(folder)).as_data_source(split="train")
    sampler = grain.samplers.IndexSampler(len(source), shard_options=grain.sharding.NoSharding(), shuffle=True, seed=0)
    operations = [PlainRecord(tokenizer), grain.transforms.Batch(BATCH, drop_remainder=True)]
    loader = grain.DataLoader(data_source=source, sampler=sampler, operations=operations, worker_count=workers)
    return iter(loader)


def _taker(batches: Iterator[object]) -> Callable[[], object]:
    return lambda: list(islice(batches, _BATCHES_AT_ONCE))


def _sanity(index: RunIndex, pipeline: TrainPipeline) -> None:
    """A batch must hold the records it says, before anything is timed."""
    with closing(pipeline.batches()) as batches:
        batch = next(batches)
    expected = index.cohorts[0].read_ecg(index.shard_row[pipeline.batch_rows(0)].tolist())
    if not np.array_equal(batch.ecg_uv, expected):
        raise SystemExit("the loader's first batch is not what its index says: no timing")


def run(quick: bool) -> Report:
    """Prepares a synthetic cohort in a temporary folder and times both loaders on it."""
    # grain's workers read absl flags, which only an absl program parses.
    absl.flags.FLAGS.mark_as_parsed()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as streams:
        prepared = build(SyntheticEcg(size=600 if quick else 4000), Path(temporary), workers=0)
        source = Source(cohort=prepared.folder.parent.name)
        index = build_index(DataSpec(sources=(source,)), temporary, seed=0)
        tokenizer = train_wordpiece(index.texts, 1000)
        arms = []
        for workers in _WORKERS:
            pipeline = TrainPipeline(index, tokenizer, max_tokens=MAX_TOKENS, batch_global=BATCH, workers=workers)
            _sanity(index, pipeline)
            ours = streams.enter_context(closing(pipeline.batches()))
            arms.append(Arm(f"TrainPipeline, {workers} workers", _taker(ours), BATCH * _BATCHES_AT_ONCE))
        for workers in _WORKERS:
            peer = plain_batches(prepared.folder, tokenizer, workers)
            arms.append(Arm(f"tfds + DataLoader, {workers} workers", _taker(peer), BATCH * _BATCHES_AT_ONCE))
        timings = measure(arms, quick=quick, sample_s=1.5 if quick else 4.0)
        records = len(index)
    return Report(
        name="loader",
        item="ECG",
        timings=timings,
        notes=(f"batches of {BATCH} ECGs (12 x 5000 int16) and reports of {MAX_TOKENS} tokens, warm page cache",),
        facts={"records": records, "distinct reports": len(index.texts)},
    )


if __name__ == "__main__":
    main(run, __doc__)
