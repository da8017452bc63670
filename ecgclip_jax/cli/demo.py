"""`ecgclip demo`: the whole path on a synthetic cohort, on a laptop CPU in minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ecgclip_jax.cli.evaluate import EvaluateArguments, evaluate_run
from ecgclip_jax.cli.options import default_data_dir, parse_with_overrides, shipped_experiment, table_console
from ecgclip_jax.cli.prepare import prepare
from ecgclip_jax.spec.files import load_experiment


@dataclass
class DemoArguments:
    """Build a synthetic cohort, pre-train on hospitals A and B, evaluate on held-out patients and on hospital C.

    Everything is synthetic and labelled so. Run again, it goes on where it stopped; dotted overrides of
    experiments/demo.py may follow (`ecgclip show experiments/demo.py --overrides-help` lists them).
    """

    variant: str | None = None
    """A variant of experiments/demo.py: base, smoke, or the null world shuffled_reports."""
    workdir: Path | None = None
    """Run folder; without it runs/<name of the experiment>."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Where the synthetic cohort is put ($ECGCLIP_DATA or ./data)."""
    size: int = 8000
    """About how many ECGs to make."""


def main(words: list[str]) -> int:
    """Prepares, trains, evaluates, and says how long each took."""
    arguments, overrides = parse_with_overrides(DemoArguments, words, "demo")
    experiment = load_experiment(shipped_experiment("demo"), arguments.variant, overrides)
    workdir = arguments.workdir or Path("runs") / experiment.name
    console = table_console()
    began_s = time.monotonic()
    prepare("synthetic_ecg", data_dir=arguments.data_dir, size=arguments.size, console=console)
    prepared_s = time.monotonic()
    from ecgclip_jax.training.loop import train

    train(experiment, workdir, arguments.data_dir)
    trained_s = time.monotonic()
    evaluate_run(EvaluateArguments(run=workdir, data_dir=arguments.data_dir), console)
    done_s = time.monotonic()
    console.print(
        f"cohort {prepared_s - began_s:.0f} s, training {trained_s - prepared_s:.0f} s, "
        f"evaluation and report {done_s - trained_s:.0f} s",
        highlight=False,
    )
    return 0
