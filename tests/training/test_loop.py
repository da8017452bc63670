"""Whole runs on a tiny cohort: they end alike whether or not they were killed, stopped or given another mesh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny_training import tiny_experiment, tiny_run

from ecgclip_jax.checkpoints import load_meta, load_params, saved_steps
from ecgclip_jax.spec.experiment import MeshSpec, OptimizerSpec
from ecgclip_jax.training.hooks import NonFiniteLossError, RunInterrupted
from ecgclip_jax.training.loop import RunSummary, train
from ecgclip_jax.training.run_folder import RunFolderError


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
    train(tiny_run(), workdir, run_data)
    return workdir


def test_a_run_folder_holds_what_is_needed(whole_run: Path) -> None:
    names = {p.name for p in whole_run.iterdir()}
    expected = {"experiment.json", "exposure.parquet", "tokenizer", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert expected <= names
    assert saved_steps(whole_run / "checkpoints") == [8, 10]
    meta = load_meta(whole_run)
    assert meta["step"] == 10
    assert meta["experiment"] == tiny_run().model_dump(mode="json")
    assert meta["fingerprint"] == tiny_run().fingerprint()
    assert meta["access"] == "open"
    assert set(meta["versions"]) >= {"jax", "flax", "orbax-checkpoint"}
    lines = metric_lines(whole_run)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert {"loss", "grad_norm", "scale", "ecg_per_s"} <= set(lines[-1])


def test_a_killed_run_ends_with_the_very_weights_of_one_that_was_not(
    whole_run: Path, run_data: Path, tmp_path: Path, compilation_cache: Path
) -> None:
    """SIGKILL after update 7, the first of an epoch; the last checkpoint is of update 4."""
    workdir = tmp_path / "killed"
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    script = Path(__file__).with_name("killed_run.py")
    killed = subprocess.run(
        [sys.executable, script, workdir, run_data, "4"], env=environment, check=False, timeout=300, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert saved_steps(workdir / "checkpoints") == [4]
    assert [line["step"] for line in metric_lines(workdir)] == list(range(1, 8))

    summary = train(tiny_run(), workdir, run_data)
    assert summary.started_at == 4
    assert_same_weights(whole_run, workdir)
    lines, whole = metric_lines(workdir), metric_lines(whole_run)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["loss"] for line in lines] == [line["loss"] for line in whole]


def test_sigterm_saves_first_and_the_run_goes_on(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "stopped"
    before = signal.getsignal(signal.SIGTERM)

    def send_sigterm(step: int, state: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"auroc": 0.5}

    with pytest.raises(RunInterrupted, match=r"stopped by SIGTERM after step 3 of 10, which is saved"):
        train(tiny_run(evaluate_every=3), workdir, run_data, evaluate=send_sigterm)
    assert saved_steps(workdir / "checkpoints") == [3]
    assert signal.getsignal(signal.SIGTERM) is before
    assert '"validation/auroc": 0.5' in (workdir / "metrics.jsonl").read_text()
    train(tiny_run(), workdir, run_data)
    assert_same_weights(whole_run, workdir)


def test_a_run_goes_on_on_another_mesh(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    """Begun on 8 x 1 devices, ended on 2 x 4: the same losses to rounding."""
    workdir = tmp_path / "moved"

    def stop(step: int, state: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(RunInterrupted):
        train(tiny_run(evaluate_every=8), workdir, run_data, evaluate=stop)
    train(tiny_run().model_copy(update={"mesh": MeshSpec(data=2, fsdp=4)}), workdir, run_data)
    np.testing.assert_allclose(
        [line["loss"] for line in metric_lines(workdir)],
        [line["loss"] for line in metric_lines(whole_run)],
        rtol=1e-3,
    )


def test_a_finished_run_is_left_alone(whole_run: Path, run_data: Path) -> None:
    summary = train(tiny_run(), whole_run, run_data)
    assert isinstance(summary, RunSummary)
    assert (summary.started_at, summary.steps, summary.metrics) == (10, 10, {})


def test_a_folder_of_another_experiment_is_refused(whole_run: Path, run_data: Path, tmp_path: Path) -> None:
    other = tiny_run().model_copy(update={"optimizer": OptimizerSpec(peak_lr=1e-4)})
    with pytest.raises(RunFolderError, match=r"another experiment: optimizer\.peak_lr is 0\.003 there and 0\.0001"):
        train(other, whole_run, run_data)
    with pytest.raises(RunFolderError, match="already holds a run"):
        train(tiny_run(), whole_run, run_data, resume=False)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="neither empty nor a run folder"):
        train(tiny_run(), tmp_path, run_data)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(run_data: Path, tmp_path: Path) -> None:
    """A learning rate that only a typo can be: the first update is still finite, later ones are not."""
    experiment = tiny_experiment(
        optimizer=OptimizerSpec(peak_lr=1e20, schedule="constant"),
        run=tiny_run(checkpoint_every=1).run,
    )
    with pytest.raises(NonFiniteLossError, match=r"at update (\d+) .*Records: tiny/r\d{4}, ") as error:
        train(experiment, tmp_path / "broken", run_data)
    broken = int(str(error.value).split("at update ")[1].split()[0])
    assert str(error.value).count("tiny/r") == 16
    assert saved_steps(tmp_path / "broken" / "checkpoints")[-1] == broken - 1
    params, _, _ = load_params(tmp_path / "broken")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
