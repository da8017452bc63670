"""One compilation cache for all runs of this folder, in this process and in those it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from support.tiny_cohort import tiny_record, write_cohort


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of compiled programs, in use until the end of the session."""
    folder = tmp_path_factory.mktemp("compiled")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(folder), 0.0), strict=True):
        jax.config.update(name, value)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort `tiny`: 50 ECGs of 25 patients, so an epoch of three batches of 16."""
    data_dir = tmp_path_factory.mktemp("run_data")
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(50)]})
    return data_dir
