"""A suite's fits: one after the other, or fine-tunings side by side.

A narrow encoder keeps one core of a CPU busy and leaves the others idle, so there fine-tunings share them. The numbers
are the same: a fit depends on its own draw and seed alone, and waits where it takes a learning rate over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from ecgclip_jax.evaluation.embedding import Store
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job, run_job
from ecgclip_jax.evaluation.suites.opening import OpenSet
from ecgclip_jax.evaluation.suites.tuning import PROTOCOL, TuningPlan

MOST_AT_ONCE = 4
"""Each holds weights and activations of its own."""


def tunings_at_once() -> int:
    """Fine-tunings that run side by side: as many as there are cores; one on an accelerator, which one keeps busy."""
    return min(os.cpu_count() or 1, MOST_AT_ONCE) if jax.default_backend() == "cpu" else 1


def fitted_in_turn(
    protocol: str, jobs: Sequence[Job], opened: OpenSet, store: Store, plan: TuningPlan, at_once: int
) -> Iterator[Fitted]:
    """Of jobs of one protocol, in their order, as they are done."""

    def run(job: Job) -> Fitted:
        try:
            fitted = run_job(job, opened, store)
        except BaseException as error:
            plan.remember(job, error)
            raise
        plan.remember(job, fitted)
        return fitted

    if protocol != PROTOCOL or at_once == 1:
        yield from map(run, jobs)
        return
    # Jobs start in order, so whoever waits for a first draw's rate waits for one that runs already.
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(run, job) for job in jobs]
        try:
            for future in running:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
