"""What several commands share: parsing an argument dataclass, and where data and runs lie by default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import tyro
from rich.console import Console

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Source

Arguments = TypeVar("Arguments")
FILE_WIDTH: Final = 160
"""Columns of tables in a pipe or a file, where a terminal's 80 would cut them."""


def default_data_dir() -> Path:
    """`$ECGCLIP_DATA`, or `./data`."""
    return Path(os.environ.get("ECGCLIP_DATA", "data"))


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or `FILE_WIDTH`."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


def shipped_experiment(name: str) -> Path:
    """File of an experiment that comes with the package."""
    import experiments

    return Path(str(experiments.__file__)).parent / f"{name}.py"


def parse(arguments: type[Arguments], words: Sequence[str], command: str) -> Arguments:
    """The command's arguments; `--help` and mistakes end the program with tyro's text."""
    return tyro.cli(arguments, args=list(words), prog=f"ecgclip {command}")


def parse_with_overrides(arguments: type[Arguments], words: Sequence[str], command: str) -> tuple[Arguments, list[str]]:
    """The command's own arguments, and the rest: dotted overrides of the experiment."""
    return tyro.cli(arguments, args=list(words), prog=f"ecgclip {command}", return_unknown_args=True)


def source_of(word: str, option: str) -> Source:
    """A cohort's split from `COHORT/SPLIT`.

    Raises:
        UserError: another form.
    """
    cohort, separator, split = word.partition("/")
    if not separator or not cohort or not split:
        raise UserError(f"{option} takes COHORT/SPLIT, for example ptb_xl/test; found {word!r}")
    return Source(cohort=cohort, split=split)
