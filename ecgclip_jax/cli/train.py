"""`ecgclip train FILE`: pre-training, from nothing or from where the run stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ecgclip_jax.cli.options import default_data_dir, parse_with_overrides
from ecgclip_jax.spec.files import load_experiment


@dataclass
class TrainArguments:
    """Pre-train an experiment. The same command resumes a run that was stopped, and does nothing to a finished one.

    Dotted overrides of the experiment may follow, for example `--optimizer.peak-lr 3e-4 --run.steps 2000`;
    `ecgclip show FILE --overrides-help` lists them all.
    """

    file: tyro.conf.Positional[Path]
    """Experiment file, for example experiments/demo.py."""
    variant: str | None = None
    """A variant of the file; without it the first one."""
    workdir: Path | None = None
    """Run folder; without it runs/<name of the experiment>."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data)."""


def main(words: list[str]) -> int:
    """Trains and says where the run lies."""
    arguments, overrides = parse_with_overrides(TrainArguments, words, "train")
    experiment = load_experiment(arguments.file, arguments.variant, overrides)
    from ecgclip_jax.training.loop import train

    workdir = arguments.workdir or Path("runs") / experiment.name
    train(experiment, workdir, arguments.data_dir)
    print(f"run folder: {workdir}\nnext: ecgclip evaluate {workdir}")
    return 0
