"""Waveforms in the devices' memory: the batches of the loader, no collective, and clear words where it cannot be."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.contracts import Batch
from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.order import GlobalOrder, local_rows, shard_records
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.data.reading import RecordReader
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.signal.gaps import derive_limb_leads
from ecgclip_jax.spec.experiment import DataSpec, MeshSpec, Source
from ecgclip_jax.spec.signal import LEADS_12, STORED_LEADS
from ecgclip_jax.training import resident
from ecgclip_jax.training.feed import Feed
from ecgclip_jax.training.resident import ResidentCohort, ResidentError

SHARDS, BATCH = 8, 16
MESH = MeshSpec(data=4, fsdp=2)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> RunIndex:
    """Two cohorts, one drawn twice as often; 44 records, so shards of five and six."""
    data_dir = tmp_path_factory.mktemp("resident")
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(30)]})
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(100, 114)]}, name="other")
    sources = (Source(cohort="tiny"), Source(cohort="other", weight=2.0))
    return build_index(DataSpec(sources=sources, shuffle_shards=SHARDS), data_dir, seed=3)


def pipeline(index: RunIndex, micro_batches: int, *, on_devices: bool) -> TrainPipeline:
    return TrainPipeline(
        index, None, max_tokens=8, batch_global=BATCH, micro_batches=micro_batches, resident=on_devices
    )


def fed(index: RunIndex, micro_batches: int, *, on_devices: bool, start: int = 0) -> list[Batch]:
    mesh, made = build_mesh(MESH), pipeline(index, micro_batches, on_devices=on_devices)
    cohort = ResidentCohort(mesh, made.order, made.reader, LEADS_12) if on_devices else None
    batches = Feed(made, mesh, micro_batches, None, cohort).batches(start)
    return list(itertools.islice(batches, 3))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_batches_are_the_loaders_also_after_a_resume(index: RunIndex, micro_batches: int) -> None:
    """An epoch has two batches: the three cross its end."""
    host = fed(index, micro_batches, on_devices=False, start=1)
    there = fed(index, micro_batches, on_devices=True, start=1)
    jax.tree.map(np.testing.assert_array_equal, there, host)
    assert jax.tree.map(lambda x: x.sharding, there) == jax.tree.map(lambda x: x.sharding, host)
    assert host[0].ecg_uv.shape[-2:] == (5000, 12)


def test_the_gather_has_no_collective(index: RunIndex) -> None:
    mesh, made = build_mesh(MESH), pipeline(index, 1, on_devices=True)
    cohort = ResidentCohort(mesh, made.order, made.reader, LEADS_12)
    batch = next(Feed(made, mesh, 1, None, cohort).batches(0))
    text = cohort.gather.lower(*cohort.arguments, batch.record_row).compile().as_text()
    assert text is not None
    assert "gather(" in text or "dynamic-slice" in text
    assert re.findall(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", text) == []


def test_shards_are_fixed_and_every_batch_takes_equally_of_each() -> None:
    """Of devices that hold two shards each, every row of a micro-batch is where its shard is."""
    order = GlobalOrder(1, (50, 37), (1.0, 1.0), 16, shards=4, micro_batches=2)
    shards = shard_records(order)
    assert sorted(np.concatenate(shards).tolist()) == list(range(87))
    assert sorted(map(len, shards)) == [21, 22, 22, 22]
    assert max(Counter(int(r >= 50) for r in s)[1] for s in shards) == 10, "each source is spread evenly"
    shard_of = {int(r): k for k, rows in enumerate(shards) for r in rows}
    for device in range(2):
        for step in range(order.steps_per_epoch + 2):
            here = order.rows(step)[local_rows(16, device, 2, 2)]
            assert Counter(shard_of[r] for r in here.tolist()) == {2 * device: 4, 2 * device + 1: 4}
    epoch = np.concatenate([order.rows(step) for step in range(order.steps_per_epoch)])
    assert order.steps_per_epoch == 5
    assert len(set(epoch.tolist())) == 80
    assert order.rows(7).tolist() == GlobalOrder(1, (50, 37), (1.0, 1.0), 16, 4, 2).rows(7).tolist()
    with pytest.raises(ValueError, match=r"must divide by data\.shuffle_shards 5"):
        GlobalOrder(1, (50, 37), (1.0, 1.0), 16, shards=5)


def test_eight_leads_only_where_nothing_that_is_seen_changes(index: RunIndex, tmp_path: Path) -> None:
    """Leads made of I and II come back exactly; recorded noise does not, and matters only to who sees it."""
    mesh, made = build_mesh(MeshSpec(), jax.devices()[:1]), pipeline(index, 1, on_devices=True)
    raw = made.reader.read(np.arange(44, dtype=np.int32))
    exact = raw.copy()
    exact[:, :, 2:6] = -32768
    exact = np.asarray(derive_limb_leads(jnp.asarray(exact)))

    class Reader(RecordReader):
        def read(self, rows: np.ndarray) -> np.ndarray:
            return exact[rows]

    reader = Reader(made.reader.readers, made.reader.source, made.reader.shard_row)
    cohort = ResidentCohort(mesh, made.order, reader, LEADS_12, eight_leads=True)
    assert cohort.arguments[0].shape == (44, 5000, 8)
    rows = jnp.asarray([7, 3, 40], jnp.int32)
    np.testing.assert_array_equal(derive_limb_leads(cohort.gather(*cohort.arguments, rows)), exact[np.asarray(rows)])
    independent = [lead for lead in STORED_LEADS if lead not in ("III", "aVR", "aVL", "aVF")]
    ResidentCohort(mesh, made.order, made.reader, independent, eight_leads=True)
    with pytest.raises(
        ResidentError, match=r"in 44 of 44 records .* not what I and II determine .*--data.input resident,"
    ):
        ResidentCohort(mesh, made.order, made.reader, LEADS_12, eight_leads=True)


def test_a_cohort_that_does_not_fit_says_how_much_is_missing(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """44 ECGs of 120 kB on one device that has 4 MB."""
    monkeypatch.setattr(resident, "free_bytes", lambda device: 4_000_000)
    made, mesh = pipeline(index, 1, on_devices=True), build_mesh(MeshSpec(), jax.devices()[:1])
    missing = f"{(44 * 120_000 - 4_000_000) / 2**30:.2f} GiB are missing"
    with pytest.raises(
        ResidentError, match=rf"would hold 44 ECGs.*{missing}.*8_leads.*; 2 devices or more instead of 1"
    ):
        ResidentCohort(mesh, made.order, made.reader, LEADS_12)


def test_devices_need_their_own_shards(index: RunIndex) -> None:
    order = GlobalOrder(0, (30, 14), (1.0, 1.0), 16, shards=4)
    reader = pipeline(index, 1, on_devices=True).reader
    with pytest.raises(ResidentError, match=r"shuffle_shards \(4\) to be a multiple of the 8 devices"):
        ResidentCohort(build_mesh(MESH), order, reader, LEADS_12)
