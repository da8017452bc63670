"""A cohort built by many machines: each writes a range of the plan's shards, one puts them together at the end.

Any scheduler that can number its jobs will do; the machines share the data directory. Every job plans for itself, which
gives the same plan, and a shard is written whole or not at all, so a job that was killed or ran twice does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from tfds_builders.common.build import (
    Prepared,
    building_in,
    finish,
    found_built,
    places_of,
    processes,
    progress_of,
    swap,
    write_shards,
)
from tfds_builders.common.cohort import BuildError, Cohort, Plan, Shard
from tfds_builders.common.finalise import build_id
from tfds_builders.common.shards import ShardFiles, ShardResult, write_json, write_whole

_RANGE = re.compile(r"(?:(\d+)(?::(\d+))?)/(\d+)")


@dataclass(frozen=True, slots=True)
class ShardRange:
    """Pieces `first` to `stop` (not included) of a plan's shards cut into `of` pieces of about equal length."""

    first: int
    stop: int
    of: int

    @classmethod
    def parse(cls, text: str) -> ShardRange:
        """Reads `0:16/64` (the first sixteen of 64 pieces) or `3/64` (the one numbered 3, from 0).

        Raises:
          BuildError: it is neither.
        """
        match = _RANGE.fullmatch(text.strip())
        first, stop, of = (int(match[1]), int(match[2] or int(match[1]) + 1), int(match[3])) if match else (0, 0, 0)
        if not 0 <= first < stop <= of:
            raise BuildError(
                f"--shards: expected FIRST:STOP/OF such as 0:16/64, or one piece such as 3/64 (from 0), found {text!r}"
            )
        return cls(first, stop, of)

    def choose(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards of these pieces; over all pieces every shard is in exactly one."""
        n = len(shards)
        return list(shards[self.first * n // self.of : self.stop * n // self.of])


@dataclass(frozen=True, slots=True)
class RangeWritten:
    """What a job of a cluster did, and what is left for others."""

    written: int
    found: int
    """Shards of the range that an earlier run had finished."""
    left: int
    """Shards of the plan that no job has finished yet."""


def write_range(
    cohort: Cohort,
    data_dir: Path,
    chosen: ShardRange,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> RangeWritten:
    """Writes the shards of a range beside what other jobs write; arguments as of `build`.

    Raises:
      BuildError: another build has the place, or the dataset is there already as another build.
    """
    plan, places = cohort.plan(), places_of(cohort, data_dir)
    if not overwrite and found_built(cohort, plan, places.folder):
        return RangeWritten(0, len(chosen.choose(plan.shards)), 0)
    with building_in(places.staging, together=True), progress_of(cohort.facts.name, plan, console) as advance:
        parts = shared_parts(cohort, plan, places.staging)
        shards = chosen.choose(plan.shards)
        pending = unfinished(shards, parts)
        for result in write_shards(cohort, pending, parts, processes(workers)):
            advance(result, resumed=False)
        return RangeWritten(len(pending), len(shards) - len(pending), len(unfinished(plan.shards, parts)))


def shared_parts(cohort: Cohort, plan: Plan, staging: Path) -> Path:
    """The folder into which all jobs of one build write.

    Raises:
      BuildError: the shards there are of another build; they are not thrown away, since its jobs may be running.
    """
    identity = build_id(cohort.facts, cohort.build_options, plan)
    parts = staging / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    mark = parts / "build.json"
    if not mark.is_file():
        write_whole(mark, lambda path: write_json(path, {"build_id": identity}))
    if json.loads(mark.read_text())["build_id"] != identity:
        raise BuildError(
            f"{staging} holds shards of another source, of other options or of another version of the code; give every "
            "job the same, or remove the folder"
        )
    return parts


def unfinished(shards: Sequence[Shard], parts: Path) -> list[Shard]:
    """Those that no run has written yet."""
    return [shard for shard in shards if ShardFiles(parts, shard.split, shard.index).finished() is None]


def merge(cohort: Cohort, data_dir: Path, *, overwrite: bool = False) -> Prepared:
    """Puts the shards of all jobs together, after counting what is really in their files.

    Raises:
      BuildError: shards are missing (it names the ranges that write them), or a file holds other numbers of records
        than its job reported.
    """
    plan, places = cohort.plan(), places_of(cohort, data_dir)
    if not overwrite and (standing := found_built(cohort, plan, places.folder)):
        return standing
    with building_in(places.staging):
        parts = shared_parts(cohort, plan, places.staging)
        results = verified(plan, parts)
        described = finish(cohort, plan, results, parts, places.staging)
    swap(places)
    return Prepared(places.folder, described, existed=False)


def verified(plan: Plan, parts: Path) -> list[ShardResult]:
    """Every shard's result, in the plan's order, after its files were counted."""
    results = []
    missing = []
    for number, shard in enumerate(plan.shards):
        files = ShardFiles(parts, shard.split, shard.index)
        if (result := files.finished()) is None:
            missing.append(number)
            continue
        _count(files, shard, result)
        results.append(result)
    if missing:
        of = len(plan.shards)
        raise BuildError(
            f"{len(missing)} of {of} shards are not written yet; these jobs write them: "
            + ", ".join(f"--shards {first}:{stop}/{of}" for first, stop in _runs(missing)[:20])
        )
    return results


def _count(files: ShardFiles, shard: Shard, result: ShardResult) -> None:
    """Compares a shard's files with its plan and with what its writer said.

    Raises:
      BuildError: they differ.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    stored = 0
    if result.records:
        reader: Any = ArrayRecordReader(str(files.data))
        stored = reader.num_records()
        reader.close()
    counted = (pq.read_metadata(files.audit).num_rows, pq.read_metadata(files.records).num_rows, stored)
    if counted != (shard.source_rows, result.records, result.records):
        raise BuildError(
            f"shard {shard.split} {shard.index}: expected {shard.source_rows} audited source records and "
            f"{result.records} ECGs, found {counted[0]} and {counted[1]} (table), {counted[2]} (waveforms). "
            f"Remove {files.done} and run its job again"
        )


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as half-open runs."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs
