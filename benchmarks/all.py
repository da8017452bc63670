"""All benchmarks in one table: `python -m benchmarks.all --quick` (`make bench`), figures of one run on one machine.

python -m benchmarks.all --quick --json bench.json --only reader preprocessing
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.common import Report, publish, reports_of

NAMES = (
    "reader",
    "builder",
    "synthesis",
    "preprocessing",
    "loader",
    "contrastive_loss",
    "train_step",
    "inference",
    "text_cache",
    "evaluation",
    "linear_probe",
    "step_memory",
    "start",
)


def main() -> None:
    """Runs them one after the other; a benchmark whose peer is not installed is named, not skipped in silence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write samples, facts and environment")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of them")
    arguments = parser.parse_args()
    console, reports, absent = Console(stderr=True), list[Report](), []
    for name in arguments.only:
        console.print(f"benchmark {name} …", highlight=False)
        try:
            reports += reports_of(import_module(f"benchmarks.{name}").run(arguments.quick))
        except ModuleNotFoundError as error:
            absent.append(f"{name}: its peer {error.name} is not installed (make bench installs it)")
    for line in absent:
        console.print(line, highlight=False)
    publish(reports, arguments.json)


if __name__ == "__main__":
    main()
