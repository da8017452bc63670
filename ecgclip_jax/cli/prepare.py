"""`ecgclip prepare NAME`: a cohort becomes sharded records that training and evaluation open by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

from ecgclip_jax.cli.cohort_arguments import any_cohort, name_of
from ecgclip_jax.cli.options import default_data_dir

if TYPE_CHECKING:
    from tfds_builders.common.build import Prepared


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
      console: where progress and summary go.
      options: the cohort's own, as its arguments class has them.

    Raises:
      UserError: no such cohort, an unusable source, or another build in the place.
    """
    from tfds_builders.common.build import build
    from tfds_builders.registry import make_cohort

    console = console or Console()
    data_dir = data_dir or default_data_dir()
    cohort = make_cohort(name, source, data_dir / "downloads" / name, console, **options)
    try:
        prepared = build(cohort, data_dir, workers=workers, overwrite=overwrite, console=console)
    except KeyboardInterrupt:
        console.print("stopped; finished shards are kept, and the same command goes on from there")
        raise
    _summarise(prepared, console)
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
