"""`ecgclip prepare NAME`: a cohort becomes sharded records that training and evaluation open by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ecgclip_jax.cli.options import default_data_dir
from ecgclip_jax.spec.errors import UserError

if TYPE_CHECKING:
    from tfds_builders.common.build import Prepared
    from tfds_builders.common.cohort import Cohort

World = Literal["default", "strangers_reports", "unseen_targets", "device_linked"]


@dataclass
class _Common:
    data_dir: Path = field(default_factory=default_data_dir)
    """Where prepared cohorts lie ($ECGCLIP_DATA or ./data); the result is DATA_DIR/NAME/VERSION."""
    workers: int | None = None
    """Processes that convert ECGs; without it one per CPU, 0 works in this one. Never changes the result."""
    overwrite: bool = False
    """Replace a dataset that was built from another source or with other options."""


@dataclass
class SyntheticArguments(_Common):
    """Make the synthetic cohort: hospitals A and B to train and test on, hospital C never trained on.

    Needs no data. An interrupted run goes on where it stopped; the same options give the same bytes.
    """

    size: int = 8000
    """About how many ECGs, over all splits; patients have one to three each."""
    seed: int = 0
    """Another seed gives other patients of the same world."""
    world: World = "default"
    """A null world in which claims must fail: reports about strangers, targets that no waveform shows, or a disease
    tied to a device in training and reversed at hospital C. It gets a name of its own (synthetic_ecg_WORLD)."""


@dataclass
class PtbXlArguments(_Common):
    """Prepare PTB-XL 1.0.3 (PhysioNet, CC BY 4.0): folds 1-8 train, 9 validation, 10 test.

    Without --source it is downloaded (2.6 GB at 500 Hz), every file checked against PhysioNet's SHA-256. An
    interrupted download or build goes on where it stopped. Odd records become rows with reasons in audit.parquet.
    """

    source: Path | None = None
    """A folder that holds ptbxl_database.csv and records500 (or records100); nothing is downloaded."""
    rate_hz: Literal[500, 100] = 500
    """Which published form to read; stored records are at 500 Hz either way."""
    report_cleaning: Literal["ptb_xl", "plain", "merl"] = "ptb_xl"
    """What report_clean holds: ours with abbreviations written out or not, or MERL's published preprocessing.
    report_raw is verbatim in all."""


Arguments = (
    Annotated[SyntheticArguments, tyro.conf.subcommand("synthetic_ecg", prefix_name=False)]
    | Annotated[PtbXlArguments, tyro.conf.subcommand("ptb_xl", prefix_name=False)]
)


def main(words: list[str]) -> int:
    """Prepares the named cohort."""
    arguments: Any = tyro.cli(Arguments, args=words, prog="ecgclip prepare")  # type: ignore[call-overload]
    name = "synthetic_ecg" if isinstance(arguments, SyntheticArguments) else "ptb_xl"
    return prepare(name, **vars(arguments))


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
      name: `synthetic_ecg` or `ptb_xl`.
      source: folder of the cohort's own files; None downloads or generates.
      data_dir: folder of prepared cohorts; None takes `$ECGCLIP_DATA` or `./data`.
      workers: processes; None takes one per CPU.
      overwrite: replace another build in the same place.
      console: where progress and summary go.
      options: the cohort's own, as its arguments class above has them.

    Raises:
      UserError: no such cohort, an unusable source, or another build in the place.
    """
    from tfds_builders.common.build import build

    console = console or Console()
    data_dir = data_dir or default_data_dir()
    cohort = _cohort(name, source, data_dir, console, options)
    try:
        prepared = build(cohort, data_dir, workers=workers, overwrite=overwrite, console=console)
    except KeyboardInterrupt:
        console.print("stopped; finished shards are kept, and the same command goes on from there")
        raise
    _summarise(prepared, console)
    return 0


def _cohort(name: str, source: Path | None, data_dir: Path, console: Console, options: Mapping[str, Any]) -> Cohort:
    if name == "synthetic_ecg":
        from tfds_builders.synthetic_ecg.cohort import SyntheticEcg

        if source is not None:
            raise UserError("synthetic_ecg is generated: it takes no --source")
        return SyntheticEcg(**options)
    if name == "ptb_xl":
        from tfds_builders.ptb_xl.cohort import PtbXl, download

        if source is not None and not source.is_dir():
            raise UserError(f"--source {source} is not a folder")
        rate_hz = options.get("rate_hz", 500)
        return PtbXl(source or download(data_dir / "downloads" / name, rate_hz, console), **options)
    raise UserError(f"no builder for {name!r}; there are synthetic_ecg and ptb_xl")


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
