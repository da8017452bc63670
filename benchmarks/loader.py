"""Loader: ECGs per second onto the device, for each input mode and number of workers, against a grain DataLoader.

Every arm reads the same prepared cohort in shuffled order, tokenises (or looks up) its reports and gives batches of
64 ECGs whose arrays lie on the device. `host` reads waveforms ahead from files, in threads (0 workers) or in spawned
workers; `resident` modes keep them on the device, so that only row numbers are sent and workers have nothing to do.
An arm goes on where it stopped, so the start of workers and the filling of the device are not timed; its sample is
long enough that what it had read ahead meanwhile (at most 500 ECGs, the DataLoader's buffer) counts little, and in
favour of the peer.
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
import jax
import numpy as np
import tensorflow_datasets as tfds
from jax.sharding import Mesh

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.contracts import Batch
from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.experiment import DataSpec, MeshSpec, Source
from ecgclip_jax.spec.signal import MISSING_UV, ecgclip
from ecgclip_jax.text.tokenizer import TextTokenizer, encode_texts, train_wordpiece
from ecgclip_jax.training.feed import Feed
from ecgclip_jax.training.resident import ResidentCohort
from tfds_builders.common.build import build
from tfds_builders.synthetic_ecg.cohort import SyntheticEcg

BATCH = 64
MAX_TOKENS = 64
WORKERS = (0, 2, 4, 8)
PEER_WORKERS = (0, 2)
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


def on_device(batches: Iterator[Any]) -> Callable[[], object]:
    """Takes the next few batches and waits until all of their arrays lie on the device."""
    return lambda: jax.block_until_ready([jax.device_put(batch) for batch in islice(batches, _BATCHES_AT_ONCE)])


def _host(index: RunIndex, tokenizer: TextTokenizer, workers: int) -> TrainPipeline:
    return TrainPipeline(index, tokenizer, max_tokens=MAX_TOKENS, batch_global=BATCH, workers=workers)


def _resident(index: RunIndex, tokenizer: TextTokenizer, mesh: Mesh, *, eight_leads: bool) -> Feed:
    pipeline = TrainPipeline(index, tokenizer, max_tokens=MAX_TOKENS, batch_global=BATCH, resident=True)
    cohort = ResidentCohort(mesh, pipeline.order, pipeline.reader, ecgclip().leads, eight_leads=eight_leads)
    return Feed(pipeline, mesh, 1, None, cohort)


def _sanity(index: RunIndex, pipeline: TrainPipeline, first: Batch) -> None:
    """A batch must hold the records it says, before anything is timed."""
    expected = index.cohorts[0].read_ecg(index.shard_row[pipeline.batch_rows(0)].tolist())
    held = np.asarray(first.ecg_uv)
    seen = (held[0] != MISSING_UV).any(axis=0)  # resident_8_leads holds no derived ones
    if seen.sum() < 8 or not np.array_equal(held[..., seen], expected[..., seen]):
        raise SystemExit("the loader's first batch is not what its index says: no timing")


def run(quick: bool) -> Report:
    """Prepares a synthetic cohort in a temporary folder and times all modes and the peer on it."""
    # grain's workers read absl flags, which only an absl program parses.
    absl.flags.FLAGS.mark_as_parsed()
    mesh = build_mesh(MeshSpec(), jax.devices()[:1])
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as streams:
        prepared = build(SyntheticEcg(size=600 if quick else 4000), Path(temporary), workers=0)
        index = build_index(DataSpec(sources=(Source(cohort=prepared.folder.parent.name),)), temporary, seed=0)
        tokenizer = train_wordpiece(index.texts, 1000)
        feeds = {f"host, {n} workers": Feed(_host(index, tokenizer, n), mesh, 1, None) for n in WORKERS}
        for name, eight_leads in (("resident", False), ("resident_8_leads", True)):
            feeds[name] = _resident(index, tokenizer, mesh, eight_leads=eight_leads)
        arms, order = [], _host(index, tokenizer, 0)
        for name, feed in feeds.items():
            batches = streams.enter_context(closing(feed.batches(0)))
            _sanity(index, order, next(batches))
            arms.append(Arm(name, on_device(batches), BATCH * _BATCHES_AT_ONCE))
        for workers in PEER_WORKERS:
            peer = plain_batches(prepared.folder, tokenizer, workers)
            arms.append(Arm(f"tfds + DataLoader, {workers} workers", on_device(peer), BATCH * _BATCHES_AT_ONCE))
        timings = measure(arms, quick=quick, sample_s=1.5 if quick else 4.0)
        records = len(index)
    return Report(
        name="loader",
        item="ECG",
        timings=timings,
        notes=(f"batches of {BATCH} ECGs (12 x 5000 int16) and reports of {MAX_TOKENS} tokens, warm page cache",),
        facts={"records": records, "distinct reports": len(index.texts), "device": jax.devices()[0].device_kind},
    )


if __name__ == "__main__":
    main(run, __doc__)
