"""Whole runs on a tiny cohort: they end alike whether or not they were killed, stopped or given another mesh."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny_training import tiny_run, train_on_one_device

from ecgclip_jax.checkpoints import load_meta, load_params, saved_steps
from ecgclip_jax.contracts import Batch
from ecgclip_jax.spec.experiment import MeshSpec, OptimizerSpec
from ecgclip_jax.training import loop
from ecgclip_jax.training.hooks import NonFiniteLossError, RunInterrupted
from ecgclip_jax.training.run_folder import RunFolderError
from ecgclip_jax.training.state import TrainState
from ecgclip_jax.training.step import TrainStep


def metric_lines(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def assert_same_weights(left: Path, right: Path) -> None:
    (params, stats, _), (other_params, other_stats, _) = load_params(left), load_params(right)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (other_params, other_stats))


@pytest.fixture(scope="module")
def whole_run(run_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train_on_one_device(tiny_run(), workdir, run_data)
    return workdir


def test_a_run_folder_holds_what_is_needed(whole_run: Path) -> None:
    names = {p.name for p in whole_run.iterdir()}
    expected = {"experiment.json", "exposure.parquet", "tokenizer", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert expected <= names
    assert saved_steps(whole_run / "checkpoints") == [20, 24]
    meta = load_meta(whole_run)
    assert meta["step"] == 24
    assert meta["experiment"] == tiny_run().model_dump(mode="json")
    assert meta["fingerprint"] == tiny_run().fingerprint()
    assert meta["access"] == "open"
    assert set(meta["versions"]) >= {"jax", "flax", "orbax-checkpoint"}
    lines = metric_lines(whole_run)
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert {"loss", "grad_norm", "scale", "ecg_per_s"} <= set(lines[-1])


def test_a_killed_run_ends_with_the_very_weights_of_one_that_was_not(
    whole_run: Path, run_data: Path, tmp_path: Path
) -> None:
    """SIGKILL after update 14, the second of an epoch of three; the last checkpoint is of update 10."""
    workdir = tmp_path / "killed"
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), str(workdir), str(run_data), "10", "14"]
    killed = subprocess.run(command, check=False, timeout=300, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert saved_steps(workdir / "checkpoints") == [10]
    assert [line["step"] for line in metric_lines(workdir)] == list(range(1, 15))

    summary = train_on_one_device(tiny_run(), workdir, run_data)
    assert summary.started_at == 10
    lines, whole = metric_lines(workdir), metric_lines(whole_run)
    assert [(line["step"], line["loss"]) for line in lines] == [(line["step"], line["loss"]) for line in whole]
    assert_same_weights(whole_run, workdir)


def test_sigterm_saves_first_and_the_run_goes_on(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "stopped"
    before = signal.getsignal(signal.SIGTERM)

    def send_sigterm(step: int, state: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"auroc": 0.5}

    with pytest.raises(RunInterrupted, match=r"stopped by SIGTERM after step 8 of 24, which is saved"):
        train_on_one_device(tiny_run(evaluate_every=8), workdir, run_data, evaluate=send_sigterm)
    assert saved_steps(workdir / "checkpoints") == [8]
    assert signal.getsignal(signal.SIGTERM) is before
    assert '"validation/auroc": 0.5' in (workdir / "metrics.jsonl").read_text()
    train_on_one_device(tiny_run(), workdir, run_data)
    assert_same_weights(whole_run, workdir)


def test_a_run_goes_on_on_another_mesh(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    """Saved on one device at update 20 (the rest of the run is thrown away), ended on 4 x 2: the same to rounding."""
    workdir = tmp_path / "moved"
    shutil.copytree(whole_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "24")
    summary = loop.train(tiny_run().model_copy(update={"mesh": MeshSpec(fsdp=2)}), workdir, run_data)
    assert summary.started_at == 20
    moved, whole = ([line["loss"] for line in metric_lines(folder)] for folder in (workdir, whole_run))
    assert len(moved) == len(whole)
    np.testing.assert_allclose(moved[20], whole[20], rtol=1e-4)
    np.testing.assert_allclose(moved[21:], whole[21:], rtol=0.02)


def test_a_finished_run_is_left_alone(whole_run: Path, run_data: Path) -> None:
    summary = train_on_one_device(tiny_run(), whole_run, run_data)
    assert (summary.started_at, summary.steps, summary.metrics) == (24, 24, {})


def test_a_folder_of_another_experiment_is_refused(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    other = tiny_run().model_copy(update={"optimizer": OptimizerSpec(peak_lr=1e-4)})
    with pytest.raises(RunFolderError, match=r"another experiment: optimizer\.peak_lr is 0\.003 there and 0\.0001"):
        loop.train(other, whole_run, run_data)
    with pytest.raises(RunFolderError, match="already holds a run"):
        loop.train(tiny_run(), whole_run, run_data, resume=False)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="neither empty nor a run folder"):
        loop.train(tiny_run(), tmp_path, run_data)
    with pytest.raises(RunFolderError, match=r"thesis\.tex/run cannot be written \(Not a directory\)"):
        loop.train(tiny_run(), tmp_path / "thesis.tex" / "run", run_data)


class BreaksAtUpdate13(TrainStep):
    """The real step, given a parameter that is not a number."""

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        if int(state.step) == 12:
            log_scale = state.params["objective"]["log_scale"]
            broken = jax.device_put(np.float32(np.nan), log_scale.sharding)
            params = state.params | {"objective": state.params["objective"] | {"log_scale": broken}}
            state = dataclasses.replace(state, params=params)
        return super().__call__(state, batch)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(
    run_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TrainStep", BreaksAtUpdate13)
    workdir = tmp_path / "broken"
    with pytest.raises(NonFiniteLossError, match=r"loss nan .* at update 13 \(global batch 12\)") as error:
        train_on_one_device(tiny_run(checkpoint_every=13), workdir, run_data)
    records = str(error.value).split("Records: ")[1].split(", ")
    # The epoch of three batches that update 13 begins shares no record with another batch of it.
    assert len(set(records)) == 16
    assert all(record.startswith("tiny/r") for record in records)
    assert saved_steps(workdir / "checkpoints") == []
    assert "no checkpoint was written yet" in str(error.value)
