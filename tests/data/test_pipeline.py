"""The loader: one global order whatever the processes, workers and resumes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny_cohort import tiny_ecg, tiny_record, write_cohort

from ecgclip_jax.contracts import Batch, TextRows, TextTokens
from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.pipeline import LoaderError, TrainPipeline
from ecgclip_jax.data.sources import CohortError
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.text.tokenizer import encode_texts, train_wordpiece

TWO_SOURCES = (Source(cohort="tiny", weight=1.0), Source(cohort="other", weight=2.0))


@pytest.fixture(scope="module")
def index(tiny_data_dir: Path) -> RunIndex:
    return build_index(DataSpec(sources=TWO_SOURCES), tiny_data_dir, seed=7)


def make(index: RunIndex, **changes: object) -> TrainPipeline:
    arguments = {"max_tokens": 12, "batch_global": 16} | changes
    return TrainPipeline(index, train_wordpiece(index.texts, 100), **arguments)  # type: ignore[arg-type]


def take(pipeline: TrainPipeline, n: int, start: int = 0) -> list[Batch]:
    stream = pipeline.batches(start)
    batches = list(itertools.islice(stream, n))
    stream.close()
    return batches


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def joined(parts: list[list[Batch]]) -> list[Batch]:
    """Batches of several processes, put together row after row."""
    return [jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*parts, strict=True)]


def test_a_batch_holds_the_waveform_text_and_groups_of_its_rows(index: RunIndex) -> None:
    tokenizer = train_wordpiece(index.texts, 100)
    pipeline = TrainPipeline(index, tokenizer, max_tokens=12, batch_global=16)
    numbers = [int(record[1:]) for record in index.column("record_id")]
    for step, batch in enumerate(take(pipeline, 3)):
        np.testing.assert_array_equal(batch.record_row, pipeline.batch_rows(step))
        here = [numbers[row] for row in batch.record_row]
        np.testing.assert_array_equal(batch.ecg_uv, np.stack([tiny_ecg(n) for n in here]))
        assert isinstance(batch.texts, TextTokens)
        ids, mask = encode_texts(tokenizer, [f"Sinus rhythm, variant {n % 5}." for n in here], 12)
        np.testing.assert_array_equal(batch.texts.ids[:, 0], ids)
        np.testing.assert_array_equal(batch.texts.mask[:, 0], mask)
        assert [index.texts[t] for t in batch.text_group[:, 0]] == [f"Sinus rhythm, variant {n % 5}." for n in here]
        assert [index.patients[p][1] for p in batch.patient_group] == [f"p{n // 2:04d}" for n in here]
        assert batch.text_valid.shape == (16, 1)
        assert batch.text_valid.all()


def test_batches_have_the_types_that_a_device_keeps(index: RunIndex) -> None:
    (batch,) = take(make(index), 1)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(batch)} <= {"int16", "int32", "float32", "bool"}
    assert set(batch.extras) == set(batch.extras_present) == {"mains_hz"}


@pytest.mark.parametrize("process_count", [2, 4])
def test_slices_of_processes_make_up_the_global_batch(index: RunIndex, process_count: int) -> None:
    """Resumed in the middle of the second epoch."""
    processes = [make(index, process_index=p, process_count=process_count) for p in range(process_count)]
    assert_same(joined([take(process, 5, start=6) for process in processes]), take(make(index), 5, start=6))


def test_workers_resumes_and_passes_do_not_change_the_order(index: RunIndex) -> None:
    """Epochs have 4 steps here: the runs cross two epoch boundaries, the resume stands in the middle of one."""
    whole = take(make(index), 10)
    assert_same(whole, take(make(index), 10))
    assert_same(whole[5:], take(make(index), 5, start=5))
    assert_same(whole[3:], take(make(index, workers=2, prefetch_batches=3), 7, start=3))


def test_epochs_are_whole_shuffled_and_different(tiny_data_dir: Path) -> None:
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), tiny_data_dir, seed=0)
    pipeline = make(index, batch_global=16)
    assert pipeline.steps_per_epoch == 3
    epochs = [np.concatenate([pipeline.batch_rows(3 * e + s) for s in range(3)]) for e in range(20)]
    assert all(len(set(rows.tolist())) == 48 for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 20
    left_out = Counter(row for rows in epochs for row in set(range(50)) - set(rows.tolist()))
    assert len(left_out) > 10, "each epoch leaves out other rows"


def test_text_rows_instead_of_tokens(index: RunIndex) -> None:
    (batch,) = take(TrainPipeline(index, None, max_tokens=12, batch_global=8), 1)
    assert isinstance(batch.texts, TextRows)
    np.testing.assert_array_equal(batch.texts.index, batch.text_group)


def test_empty_reports_and_unknown_mains_are_masked(tmp_path: Path) -> None:
    records = [
        tiny_record(0, report=""),
        tiny_record(1, mains_hz=float("nan")),
        tiny_record(2, mains_hz=60.0),
        tiny_record(3),
    ]
    write_cohort(tmp_path, {"train": records})
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),), min_report_words=0), tmp_path, seed=0)
    (batch,) = take(make(index, batch_global=4), 1)
    by_row = np.argsort(batch.record_row)
    np.testing.assert_array_equal(batch.text_valid[by_row, 0], [False, True, True, True])
    np.testing.assert_array_equal(batch.extras["mains_hz"][by_row], [50, 0, 60, 50])
    np.testing.assert_array_equal(batch.extras_present["mains_hz"][by_row], [True, False, True, True])


def test_sizes_that_do_not_fit_are_named(index: RunIndex) -> None:
    with pytest.raises(ValueError, match="batch_global 16 must divide by the 3 processes"):
        make(index, process_count=3)
    with pytest.raises(ValueError, match="batch_global 128 is larger than the 70 records"):
        make(index, batch_global=128)
    with pytest.raises(ValueError, match="counts from 0"):
        make(index).batch_rows(-1)


def test_a_damaged_shard_stops_the_loader_with_its_name(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path, {"train": [tiny_record(n) for n in range(8)]})
    shard = next(folder.glob("*array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20000] = bytes(20000)
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), tmp_path, seed=0)
    shard.write_bytes(content)
    with pytest.raises(CohortError, match=r"tiny/1\.0\.0, split train: rows .* prepare the cohort again"):
        take(make(index, batch_global=8), 1)


@pytest.mark.parametrize("workers", [0, 1], ids=["threads", "worker"])
def test_shards_cut_short_during_training_stop_the_loader_with_their_name(tmp_path: Path, workers: int) -> None:
    """The shards are open and a batch has been read when they lose their second halves: no hang, no made-up ECGs."""
    folder = write_cohort(tmp_path, {"train": [tiny_record(n) for n in range(24)]})
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), tmp_path, seed=0)
    arguments = {"max_tokens": 8, "batch_global": 4, "prefetch_batches": 1, "workers": workers}
    with closing(TrainPipeline(index, None, **arguments).batches()) as stream:  # type: ignore[arg-type]
        next(stream)
        for shard in folder.glob("*array_record*"):
            os.truncate(shard, shard.stat().st_size // 2)
        with pytest.raises(CohortError, match=r"tiny/1\.0\.0, split train: rows .* damaged or incomplete, prepare"):
            list(itertools.islice(stream, 20))


def test_a_worker_that_dies_stops_the_loader_with_a_word(index: RunIndex) -> None:
    stream = make(index, workers=1, prefetch_batches=1).batches()
    next(stream)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"worker that reads ECGs was lost .*-9.*lower data\.workers"):
        list(itertools.islice(stream, 20))


PROGRAM = """
import sys
from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.spec.experiment import DataSpec, Source

if __name__ == "__main__":
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), sys.argv[1], 0)
    threads = TrainPipeline(index, None, max_tokens=8, batch_global=8).batches(2)
    workers = TrainPipeline(index, None, max_tokens=8, batch_global=8, workers=1).batches(2)
    held = [next(threads), next(threads), next(workers)]
    print("done")
"""


def test_a_program_that_stops_reading_ends_without_noise(tiny_data_dir: Path, tmp_path: Path) -> None:
    """Not under pytest's flags: absl flags are not parsed here, which grain's workers would stumble over."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tiny_data_dir)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRANSFORMERS_")}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "done", "")
