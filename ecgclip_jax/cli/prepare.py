"""`ecgclip prepare NAME`: a cohort becomes sharded records that training and evaluation open by name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

from ecgclip_jax.cli.cohort_arguments import any_cohort, name_of
from ecgclip_jax.cli.options import default_data_dir
from ecgclip_jax.spec.errors import UserError

if TYPE_CHECKING:
    from tfds_builders.common.build import Prepared
    from tfds_builders.common.cohort import Cohort


def main(words: list[str]) -> int:
    """Prepares the named cohort."""
    arguments: Any = tyro.cli(any_cohort(), args=words, prog="ecgclip prepare")
    return prepare(name_of(arguments), **vars(arguments))


def prepare(
    name: str,
    source: Path | None = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    shards: str | None = None,
    merge: bool = False,
    beam: str | None = None,
    console: Console | None = None,
    **options: Any,
) -> int:
    """Builds a cohort, or finds it built, and says what is in it.

    Args:
      name: one of `cohort_arguments.ARGUMENTS`.
      source: folder of the cohort's own files; None downloads or generates.
      data_dir: folder of prepared cohorts; None takes `$ECGCLIP_DATA` or `./data`.
      workers: processes; None takes one per CPU.
      overwrite: replace another build in the same place.
      shards: write only this range of shards, as one job of a cluster (`0:16/64`, `3/64`).
      merge: put together what such jobs have written.
      beam: build in an Apache Beam pipeline with these arguments, in one text.
      console: where progress and summary go.
      options: the cohort's own, as its arguments class has them.

    Raises:
      UserError: no such cohort, an unusable source, another build in the place, shards that are missing, or several
        ways of building at once.
    """
    from tfds_builders.registry import make_cohort

    if (shards is not None) + merge + (beam is not None) > 1:
        raise UserError("--shards, --merge and --beam are three ways of building: give one at a time")
    console = console or Console()
    data_dir = data_dir or default_data_dir()
    cohort = make_cohort(name, source, data_dir / "downloads" / name, console, **options)
    try:
        if shards is not None:
            return _write_range(cohort, data_dir, shards, workers, overwrite, console)
        prepared = _build(cohort, data_dir, workers, overwrite, merge, beam, console)
    except KeyboardInterrupt:
        console.print("stopped; finished shards are kept, and the same command goes on from there")
        raise
    from ecgclip_jax.reporting.cohort_card import write_card

    _summarise(prepared, console)
    console.print(f"card: {write_card(prepared.folder)}", highlight=False, soft_wrap=True)
    return 0


def _build(
    cohort: Cohort,
    data_dir: Path,
    workers: int | None,
    overwrite: bool,
    merge: bool,
    beam: str | None,
    console: Console,
) -> Prepared:
    from tfds_builders.common.beam import build_with_beam
    from tfds_builders.common.build import build
    from tfds_builders.common.cluster import merge as merge_shards

    if merge:
        return merge_shards(cohort, data_dir, overwrite=overwrite)
    if beam is not None:
        return build_with_beam(cohort, data_dir, shlex.split(beam), overwrite=overwrite)
    return build(cohort, data_dir, workers=workers, overwrite=overwrite, console=console)


def _write_range(
    cohort: Cohort, data_dir: Path, shards: str, workers: int | None, overwrite: bool, console: Console
) -> int:
    from tfds_builders.common.cluster import ShardRange, write_range

    chosen = ShardRange.parse(shards)
    done = write_range(cohort, data_dir, chosen, workers=workers, overwrite=overwrite, console=console)
    rest = f"{done.left} shards are left to other jobs" if done.left else "all shards are there: now --merge"
    console.print(f"{done.written} shards written, {done.found} found; {rest}", highlight=False, soft_wrap=True)
    return 0


def _summarise(prepared: Prepared, console: Console) -> None:
    facts = prepared.cohort
    table = Table("split", "ECGs", "patients", "kept", "flagged", "dropped")
    for split, records in facts["splits"].items():
        counts = facts["counts"][split]
        numbers = (records, *(counts[column] for column in ("patients", "kept", "flagged", "dropped")))
        table.add_row(split, *(f"{number:,}" for number in numbers))
    console.print(table)
    for outcome, count in facts["outcomes"].items():
        reasons = sorted(facts["reasons"].get(outcome, {}).items(), key=lambda item: -item[1])
        told = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
        console.print(f"{outcome}: {count:,} source records{': ' * bool(told)}{told}", highlight=False, soft_wrap=True)
    console.print(f"licence: {facts['licence']} (access: {facts['access']})", highlight=False, soft_wrap=True)
    verb = "was there already" if prepared.existed else "prepared"
    console.print(
        f"{verb}: {prepared.folder} (what became of every record: audit.parquet)", highlight=False, soft_wrap=True
    )
