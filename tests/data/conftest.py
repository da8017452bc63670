"""A small prepared cohort that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_cohort import tiny_record, write_cohort


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort `tiny` (train: 50 ECGs of 25 patients, validation: 10 of 5) and cohort `other` (train: 20)."""
    data_dir = tmp_path_factory.mktemp("data")
    train = [tiny_record(n) for n in range(50)]
    validation = [tiny_record(n) for n in range(50, 60)]
    write_cohort(data_dir, {"train": train, "validation": validation})
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(100, 120)]}, name="other", access="credentialed")
    return data_dir
