"""`ecgclip`: one thin file per command; this one finds the command and turns user errors into one sentence."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecgclip_jax import __version__
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.local_cache import keep_programs

COMMANDS = {
    "demo": "the whole path on a synthetic cohort: prepare, train, evaluate, report",
    "prepare": "turn an ECG cohort into sharded records, with an audit of every record",
    "train": "pre-train an experiment file; resumes where it stopped",
    "evaluate": "turn a run into a results table and a report",
    "compare": "two evaluated runs, paired on the same test records",
    "calibrate": "thresholds and temperature of a run, refitted on local records",
    "embed": "every ECG of a cohort through a run's model, into arrays for other tools",
    "show": "the resolved experiment: every value, its variants, its fingerprint",
    "compile": "the training step compiled for a TPU, GPU or CPU target: memory, bytes, collectives, bounds",
    "profile": "a few real training steps: time by layer kind, roofline fraction, wait for input, a trace",
    "doctor": "versions, devices, memory, data folders, and what is missing",
    "contact-sheet": "one ECG page per synthetic diagnosis, to look at",
}


def print_help(console: Console) -> None:
    """What each command is for and how to begin."""
    table = Table.grid(padding=(0, 2))
    for name, purpose in COMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", purpose)
    console.print(f"[bold]ecgclip[/] {__version__}: contrastive ECG-report pre-training in JAX\n")
    console.print(table)
    console.print(
        "\n`ecgclip COMMAND --help` explains a command. A first run on your own data:\n"
        "  ecgclip prepare ptb_xl --source FOLDER\n"
        "  ecgclip train experiments/ptb_xl_sample.py --workdir runs/first\n"
        "  ecgclip evaluate runs/first\n",
        highlight=False,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code (2 for an error that the user can mend)."""
    words = sys.argv[1:] if argv is None else argv
    console = Console()
    if not words or words[0] in ("-h", "--help", "help"):
        print_help(console)
        return 0
    if words[0] == "--version":
        console.print(__version__, highlight=False)
        return 0
    command, *rest = words
    errors = Console(stderr=True)
    if command not in COMMANDS:
        errors.print(
            escape(f"ecgclip has no command {command!r}; it has: {', '.join(COMMANDS)}"),
            highlight=False,
            soft_wrap=True,
        )
        return 2
    _quiet_absl()
    if command != "compile":  # what that compiles is never run
        keep_programs(os.environ)
    try:
        module = import_module(f"ecgclip_jax.cli.{command.replace('-', '_')}")
        return int(module.main(rest))
    except UserError as error:
        if os.environ.get("ECGCLIP_DEBUG"):
            raise
        errors.print(f"[red]ecgclip {command}:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print(f"ecgclip {command}: stopped by the keyboard", highlight=False)
        return 130


def _quiet_absl() -> None:
    # grain's worker processes read absl flags; libraries log information that nobody asked for.
    import absl.flags
    import absl.logging

    absl.flags.FLAGS.mark_as_parsed()
    absl.logging.set_verbosity(absl.logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
