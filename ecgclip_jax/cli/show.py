"""`ecgclip show FILE`: the resolved experiment, before anything is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from ecgclip_jax.cli.options import parse_with_overrides
from ecgclip_jax.spec.files import load_experiment, load_variants


@dataclass
class ShowArguments:
    """Print the resolved experiment as JSON. Dotted overrides (`--optimizer.peak-lr 3e-4`) may follow."""

    file: tyro.conf.Positional[Path]
    """Experiment file, for example experiments/demo.py."""
    variant: str | None = None
    """A variant of the file; without it the first one."""
    overrides_help: bool = False
    """List every value that can be overridden, with its type and meaning."""


def main(words: list[str]) -> int:
    """Prints the experiment, its variants and its fingerprint."""
    arguments, overrides = parse_with_overrides(ShowArguments, words, "show")
    if arguments.overrides_help:
        overrides = ["--help"]
    experiment = load_experiment(arguments.file, arguments.variant, overrides)
    console = Console()
    console.print_json(experiment.model_dump_json())
    variants = load_variants(arguments.file)
    console.print(f"variants    {', '.join(variants)}", highlight=False)
    console.print(f"fingerprint {experiment.fingerprint()}", highlight=False)
    return 0
