"""What the builders write is what this room opens: the one place where the two sides meet."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.sources import open_cohort
from ecgclip_jax.spec.experiment import DataSpec, Source
from tfds_builders.common.build import build
from tfds_builders.synthetic_ecg.cohort import SyntheticEcg


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(SyntheticEcg(size=100), folder, workers=0)
    return folder


def test_every_waveform_is_the_one_that_the_table_describes(data_dir: Path) -> None:
    for name in ("train", "validation", "test", "external"):
        split = open_cohort(data_dir, Source(cohort="synthetic_ecg", split=name))
        read = [sha256(ecg.tobytes()).hexdigest() for ecg in split.read_ecg(range(len(split)))]
        assert read == split.table.column("waveform_sha256").to_pylist()


def test_its_splits_share_no_patient(data_dir: Path) -> None:
    def index(split: str) -> RunIndex:
        return build_index(DataSpec(sources=(Source(cohort="synthetic_ecg", split=split),)), data_dir, seed=0)

    patients = [set(index(split).patients) for split in ("train", "validation", "test", "external")]
    assert sum(map(len, patients)) == len(set.union(*patients))
