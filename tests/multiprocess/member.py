"""Started by the tests of this folder: one process of a job, which does the runs it is told to, one after the other.

An order is a JSON object: `experiments`, one per process, `workdir`, and optionally `signal` (`[process, number]`: that
process sends itself that signal at its first validation). What came of each order goes to `<report>.<process>.json`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from jax._src import compiler, distributed

from ecgclip_jax.parallel.distributed import find_job, start_job
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment


def train(order: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    """One run; why it stopped, if it did."""
    from ecgclip_jax.training import loop

    workdir, experiment = Path(order["workdir"]), Experiment.model_validate(order["experiments"][job.process_id])
    process, number = order.get("signal", (-1, 0))

    def send_signal(step: int, state: object) -> dict[str, float]:
        if step == experiment.run.evaluate_every and process == job.process_id:
            while number == 9 and not any((workdir / "checkpoints").glob("[0-9]*")):
                time.sleep(0.05)
            os.kill(os.getpid(), number)
        return {}

    try:
        summary = loop.train(experiment, workdir, data_dir, evaluate=send_signal)
    except UserError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"started_at": summary.started_at, "loss": summary.metrics.get("loss")}


def cache_every_process(write: Callable[..., None]) -> Callable[..., None]:
    """JAX lets only process 0 write its compilation cache; on CPUs each process has programs of its own."""

    def as_process_0(*args: Any) -> None:
        with mock.patch.object(distributed.global_state, "process_id", 0):
            write(*args)

    return as_process_0


if __name__ == "__main__":
    report, data, orders = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    compiler._cache_write = cache_every_process(compiler._cache_write)
    job = find_job()
    assert job is not None
    start_job(job)
    results: list[dict[str, Any]] = []
    for order in orders:
        results.append(train(order, data))
        report.with_suffix(f".{job.process_id}.json").write_text(json.dumps(results))
