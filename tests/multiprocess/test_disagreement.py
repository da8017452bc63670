"""Processes that were not started alike are refused before the first step, in words, on all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_training import tiny_run

EXPERIMENT = """
from ecgclip_jax.spec.experiment import Experiment

def variants():
    return {"tiny": Experiment.model_validate_json(TINY)}
"""


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "tiny.py"
    path.write_text(f"TINY = {tiny_run().model_dump_json()!r}\n{EXPERIMENT}")
    return path


def test_another_seed_is_named_on_both(start, experiment_file: Path, run_data: Path, tmp_path: Path) -> None:
    command = ["-m", "ecgclip_jax.cli.main", "train", str(experiment_file), "--data-dir", str(run_data)]
    command += ["--workdir", str(tmp_path / "run")]
    ended = start([command, [*command, "--seed", "7"]])
    for process, end in enumerate(ended):
        assert end.exit_code == 2, end.stderr
        found, joined, *_, refused = end.stderr.strip().splitlines()
        assert found.startswith(f"ecgclip train: process {process} of 2, told explicitly, coordinator 127.0.0.1:")
        assert joined == f"ecgclip train: joined as process {process} of 2 with 4 of 8 cpu devices"
        assert refused.startswith("ecgclip train: the processes do not agree: seed is 7 on process 1 and 0 on process")
    assert not (tmp_path / "run").exists()
