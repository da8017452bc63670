"""From a process's start to the demo's compiled step: with what an earlier process left (`local_cache`), and without.

Imports are part of it, records and text are not. Every sample is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.spec.local_cache import FOLDER_VARIABLE, keep_programs, kept_mib

DEMO: Final = Path(__file__).resolve().parents[1] / "experiments" / "demo.py"
_TOKENS: Final = 1000


def start() -> None:
    """What stands before a first step: filters, towers, the step's program."""
    keep_programs(os.environ)  # before anything imports jax
    from ecgclip_jax.parallel.targets import describe, parse_target
    from ecgclip_jax.spec.files import load_experiment
    from ecgclip_jax.training.program import compile_parts
    from ecgclip_jax.training.state import build_parts

    # Lowering designs the filters, or finds them: the program takes them as arguments.
    compile_parts(build_parts(load_experiment(DEMO, "base"), _TOKENS), describe(parse_target("cpu:1")))


def _process(folder: str) -> Callable[[], object]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    environment |= {FOLDER_VARIABLE: folder, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "from benchmarks.start import start; start()"]
    return lambda: subprocess.run(command, env=environment, check=True, cwd=DEMO.parents[1])


def run(quick: bool) -> Report:
    """Times both; an untimed process fills the folder."""
    with tempfile.TemporaryDirectory() as folder:
        found_again = Arm("found again", _process(folder))
        found_again.run()
        timings = measure([found_again, Arm("nothing kept", _process(""))], quick=quick, warm=True)
        facts: dict[str, object] = {"kept (MiB)": round(kept_mib(Path(folder)), 1)}
    return Report(name="start", item="start", timings=timings, facts=facts, notes=("the demo's step on one CPU",))


if __name__ == "__main__":
    main(run, __doc__)
