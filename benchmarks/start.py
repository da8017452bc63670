"""From the start of a process to the demo's compiled step: what an earlier process left (`local_cache`), and nothing.

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
from ecgclip_jax.local_cache import FOLDER_VARIABLE, keep_programs

DEMO: Final = Path(__file__).resolve().parents[1] / "experiments" / "demo.py"
_TOKENS: Final = 1000


def start() -> None:
    """What stands before a first step: filters, towers, the step's program."""
    keep_programs(os.environ)  # before anything imports jax
    from ecgclip_jax.parallel.targets import describe, parse_target
    from ecgclip_jax.signal.operators import build_operators
    from ecgclip_jax.spec.files import load_experiment
    from ecgclip_jax.training.program import compile_parts
    from ecgclip_jax.training.state import build_parts

    experiment = load_experiment(DEMO, "base")
    build_operators(experiment.signal)
    compile_parts(build_parts(experiment, _TOKENS), describe(parse_target("cpu:1")))


def _process(folder: str) -> Callable[[], object]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    environment |= {FOLDER_VARIABLE: folder, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "from benchmarks.start import start; start()"]
    return lambda: subprocess.run(command, env=environment, check=True, cwd=DEMO.parents[1])


def run(quick: bool) -> Report:
    """Times both; the untimed first process fills the folder."""
    with tempfile.TemporaryDirectory() as folder:
        arms = [Arm("found again", _process(folder)), Arm("nothing kept", _process(""))]
        timings = measure(arms, quick=quick, sample_s=0)
        kept_mib = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 2**20
    facts: dict[str, object] = {"kept (MiB)": round(kept_mib, 1)}
    return Report(name="start", item="start", timings=timings, facts=facts, notes=("the demo's step on one CPU",))


if __name__ == "__main__":
    main(run, __doc__)
