"""A worker process of a build: what it is forked from, and how it is set up.

A fork of the calling process would not be safe beside JAX's threads, and a process begun from nothing imports for a
second before its first record. So a server without threads of its own imports what a conversion needs, once, and every
worker is forked from that.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

from tfds_builders.common.cohort import Cohort


def start_server(cohort: Cohort) -> ForkServerContext:
    """The context of workers for a cohort; its server, if none is running yet, imports while the caller goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tfds_builders.common.worker_imports", type(cohort).__module__])
    forkserver.ensure_running()
    return context


def set_up_worker() -> None:
    """Ctrl-C reaches the parent, which lets running shards end; one thread per worker, as there is one per CPU."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, and write beside the build that goes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
