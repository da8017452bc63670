"""Builds a cohort: worker processes write shards, an interrupted build goes on, the finished folder appears at once.

TFDS's own `GeneratorBasedBuilder` sorts a split in memory and, without TensorFlow, fails beyond 1000 MiB. Here each
worker streams one shard at a time, so memory depends on the longest recording and on the metadata table, never on
the number of ECGs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tfds_builders.common.cohort import BuildError, Cohort, Plan, Shard
from tfds_builders.common.finalise import build_id, finalise
from tfds_builders.common.shards import ShardFiles, ShardResult, write_json, write_shard
from tfds_builders.common.worker import set_up_worker, start_server


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared dataset on disk."""

    folder: Path
    cohort: dict[str, Any]
    """What its `cohort.json` says."""
    existed: bool
    """It stood there already, built from the same source with the same options."""


def build(
    cohort: Cohort,
    data_dir: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Prepared:
    """Builds `data_dir/<name>/<version>` or finds it built.

    Args:
      workers: processes; None takes one per CPU, 0 works in this process. Order and bytes do not depend on it.
      overwrite: replace a dataset built from another source or with other options (the old one stays until the
        new one is whole).
      console: where progress is shown; None shows none.

    Raises:
      BuildError: if the source is not usable, or another build stands in the place and `overwrite` is not set.
    """
    places = places_of(cohort, data_dir)
    if processes(workers) and not places.folder.exists():
        start_server(cohort)
    plan = cohort.plan()
    if not overwrite and (standing := found_built(cohort, plan, places.folder)):
        return standing
    described = build_into(cohort, plan, places.staging, workers=workers, console=console)
    swap(places)
    return Prepared(places.folder, described, existed=False)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a build ends and where it grows."""

    folder: Path
    staging: Path
    """Beside the folder, so that the finished dataset appears in one step."""


def places_of(cohort: Cohort, data_dir: Path) -> Places:
    """Where the cohort is built in a data directory."""
    folder = data_dir / cohort.facts.name / cohort.facts.version
    return Places(folder, folder.with_name(f"{folder.name}.incomplete"))


def found_built(cohort: Cohort, plan: Plan, folder: Path) -> Prepared | None:
    """The dataset that stands at `folder` already; None if there is none.

    Raises:
      BuildError: if it is another build of the cohort.
    """
    if not folder.exists():
        return None
    return Prepared(folder, _same_build(folder, build_id(cohort.facts, cohort.build_options, plan)), existed=True)


def build_into(
    cohort: Cohort, plan: Plan, folder: Path, *, workers: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Builds a planned cohort in `folder`, going on where an interrupted build of the same id stopped there."""
    folder.mkdir(parents=True, exist_ok=True)
    with building_in(folder):
        return _build_alone(cohort, plan, folder, processes(workers), console)


def _build_alone(cohort: Cohort, plan: Plan, folder: Path, workers: int, console: Console | None) -> dict[str, Any]:
    parts = _parts_folder(folder, build_id(cohort.facts, cohort.build_options, plan))
    results: dict[tuple[str, int], ShardResult] = {}
    with progress_of(cohort.facts.name, plan, console) as advance:
        pending = []
        for shard in plan.shards:
            if finished := ShardFiles(parts, shard.split, shard.index).finished():
                results[shard.split, shard.index] = finished
                advance(finished, resumed=True)
            else:
                pending.append(shard)
        for result in write_shards(cohort, pending, parts, workers):
            results[result.split, result.index] = result
            advance(result, resumed=False)
    return finish(cohort, plan, [results[shard.split, shard.index] for shard in plan.shards], parts, folder)


def processes(workers: int | None) -> int:
    """Worker processes that are meant: one per CPU without a number."""
    return os.cpu_count() or 1 if workers is None else workers


def finish(cohort: Cohort, plan: Plan, results: Sequence[ShardResult], parts: Path, folder: Path) -> dict[str, Any]:
    """Makes the dataset of finished shards, which are in the plan's order, and removes what only the build needed."""
    described = finalise(cohort.facts, cohort.build_options, plan, results, parts, folder)
    shutil.rmtree(parts)
    return described


def _same_build(folder: Path, identity: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    if described["build_id"] != identity:
        raise BuildError(
            f"{folder} was built from another source, with other options ({described['options']}) or by another "
            "version of the code. Give --overwrite to replace it, or another --data-dir to keep both."
        )
    return described


def _parts_folder(folder: Path, identity: str) -> Path:
    """The folder of finished shards: kept from an interrupted build of the same id, emptied otherwise.

    What else an interrupted build had begun to put together beside it is put together again.
    """
    parts = folder / "parts"
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
        elif path != parts:
            shutil.rmtree(path)
    mark = parts / "build.json"
    if not mark.is_file() or json.loads(mark.read_text())["build_id"] != identity:
        if parts.exists():
            shutil.rmtree(parts)
        parts.mkdir(parents=True)
        write_json(mark, {"build_id": identity})
    return parts


@contextmanager
def building_in(folder: Path, *, together: bool = False) -> Iterator[None]:
    """One build at a time, or several processes that write parts of one; the lock falls with who held it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise BuildError(f"another process is building {folder}; wait for it, or give another --data-dir") from None
        yield
        if not together:
            Path(lock.name).unlink(missing_ok=True)


def swap(places: Places) -> None:
    """Puts the finished dataset in its place; what stood there goes."""
    folder, staging = places.folder, places.staging
    replaced = folder.with_name(f"{folder.name}.replaced")
    if folder.exists():
        os.replace(folder, replaced)
    os.replace(staging, folder)
    shutil.rmtree(replaced, ignore_errors=True)


def write_shards(cohort: Cohort, shards: Sequence[Shard], parts: Path, workers: int) -> Iterator[ShardResult]:
    """Results as they are finished, in any order.

    Raises:
      BuildError: if a worker is killed or a shard cannot be written; what is finished stays.
    """
    try:
        yield from _write_in_pool(cohort, shards, parts, workers)
    except BrokenProcessPool as error:
        raise BuildError(
            f"a worker process was killed ({error}); most often memory ran out. Finished shards are kept: the same "
            "command goes on, with fewer --workers if need be"
        ) from error
    except OSError as error:
        raise BuildError(
            f"a shard could not be written below {parts} ({error}). Finished shards are kept: make room, and the same "
            "command goes on"
        ) from error


def _write_in_pool(cohort: Cohort, shards: Sequence[Shard], parts: Path, workers: int) -> Iterator[ShardResult]:
    if workers == 0 or len(shards) < 2:
        yield from (write_shard(cohort, shard, parts) for shard in shards)
        return
    workers = min(workers, len(shards))
    with ProcessPoolExecutor(workers, mp_context=start_server(cohort), initializer=set_up_worker) as pool:
        todo = iter(shards)
        running: set[Future[ShardResult]] = set()
        try:
            while True:
                # Two per worker in flight: a payload waits in memory only when it is about to be worked on.
                for shard in islice(todo, 2 * workers - len(running)):
                    running.add(pool.submit(write_shard, cohort, shard, parts))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _RateColumn(ProgressColumn):
    """ECGs per second of this run, shards found finished left out."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["resumed"]
        rate = done / task.elapsed if task.elapsed and done else 0.0
        return Text(f"{rate:,.0f} ECG/s", style="progress.data.speed")


@contextmanager
def progress_of(name: str, plan: Plan, console: Console | None) -> Iterator[Any]:
    """Yields `advance(result, resumed=…)`, which moves the bar."""
    if console is None:
        yield lambda result, resumed: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        total = sum(shard.source_rows for shard in plan.shards)
        task = progress.add_task(f"prepare {name}", total=total, resumed=0)

        def advance(result: ShardResult, resumed: bool) -> None:
            progress.update(task, advance=result.source_rows)
            if resumed:
                already = progress.tasks[task].fields["resumed"]
                progress.update(task, resumed=already + result.source_rows)

        yield advance
