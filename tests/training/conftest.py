"""The cohort that the runs of this folder train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_cohort import tiny_record, write_cohort


@pytest.fixture(scope="session")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort `tiny`: 50 ECGs of 25 patients, so an epoch of three batches of 16."""
    data_dir = tmp_path_factory.mktemp("run_data")
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(50)]})
    return data_dir
