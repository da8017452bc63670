"""One compilation cache for all runs of this folder, in this process and in those it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from support.tiny_cohort import tiny_record, write_cohort


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled programs."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(compilation_cache: Path) -> Iterator[None]:
    """Programs run a few steps only: they are compiled without optimisation, and once for all tests of this folder."""
    settings = {
        "jax_compilation_cache_dir": str(compilation_cache),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort `tiny`: 50 ECGs of 25 patients, so an epoch of three batches of 16."""
    data_dir = tmp_path_factory.mktemp("run_data")
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(50)]})
    return data_dir
