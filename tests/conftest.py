"""Shared fixtures: CPU devices, run-time checked array annotations, the real ECGs beside the checkout."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

# Programs of tests run a few times at most: to compile them well, or in parts side by side, takes longer than they run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Workers share the cores: threads of BLAS would wait for each other, busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is compiled or trained once for all processes of a run: pytest-xdist's workers and what tests start inherit this.
if "ECGCLIP_TESTS_SCRATCH" not in os.environ:
    os.environ["ECGCLIP_TESTS_SCRATCH"] = tempfile.mkdtemp(prefix="ecgclip-tests-")
    atexit.register(shutil.rmtree, os.environ["ECGCLIP_TESTS_SCRATCH"], ignore_errors=True)
from ecgclip_jax.spec.local_cache import FOLDER_VARIABLE, cache_folder, keep_programs

# What this machine compiled and designed for tests once, it finds again: in any process, run and checkout.
if folder := cache_folder():
    os.environ.setdefault(FOLDER_VARIABLE, str(folder / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
keep_programs(os.environ)

import absl.flags
import pytest
from support.checked import check_annotations

# grain's worker processes read absl flags, which nobody parses under pytest.
absl.flags.FLAGS.mark_as_parsed()
check_annotations("ecgclip_jax")
# Traced programs are millions of small objects that stay: to look through them all again and again is wasted.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True, scope="module")
def _only_own_garbage() -> None:
    """What earlier files left, programs above all, is not looked through again whenever somebody collects garbage."""
    gc.collect()
    gc.freeze()


SHARED_DATA = Path(os.environ.get("ECGCLIP_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

LONGEST_FIRST = (
    "test_demo_claims.py",
    "test_two_process_runs.py",
    "test_loop.py",
    "test_micro_batches.py",
    "test_objectives_learn.py",
    "test_commands.py",
    "test_inference.py",
    "test_starting.py",
    "test_tiled_losses.py",
)
"""Files of 20 CPU seconds and more: begun last, one of them alone would keep one of two workers busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order (so `--no-loadscope-reorder` with pytest-xdist)."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real ECGs; tests that need it are skipped without it, and `.ci/run` fails on such a skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real ECGs are not beside the checkout (set ECGCLIP_SHARED_DATA)")
    return SHARED_DATA


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Under ECGCLIP_NO_SKIP (CI) a skipped test fails the run: everything it needs is at hand there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("ECGCLIP_NO_SKIP") and skipped and not hasattr(session.config, "workerinput"):
        reporter.write_line(f"ECGCLIP_NO_SKIP: {len(skipped)} tests were skipped that should have run")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
