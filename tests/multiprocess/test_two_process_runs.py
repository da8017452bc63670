"""Two processes of four CPU devices train as one process of eight; they stop together, and lose nothing by it.

One job does several runs in a row, since starting processes and compiling is most of the time: a whole run; one whose
processes were given different seeds; one that goes on from a checkpoint of a single process and is asked to stop by
SIGTERM to one of the two; one that loses a process to SIGKILL. A second job, started by the command, goes on with it.

Losses of one and of two processes are equal to rounding only: the collectives of one process and those between
processes add the devices' parts in another order. Training amplifies that (where a ReLU's input changes sign, and where
Adam divides noise by noise), so the steps are small here. Two runs of two processes are equal bit for bit.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny_training import FROZEN, tiny_run

from ecgclip_jax.checkpoints import load_params, saved_steps
from ecgclip_jax.spec.experiment import Experiment, OptimizerSpec
from ecgclip_jax.training import loop

STEPS, SAVED, SIGNALLED = 12, 4, 6
"""Length of a run, updates between checkpoints, and the update after which a signal comes."""


@dataclass(frozen=True)
class Runs:
    """Run folders, and how the job that made those of two processes ended."""

    one: Path
    """A whole run of one process with eight devices."""
    two: Path
    """The same of two processes with four each."""
    torn: Path
    """Of two processes, of which process 1 was given another seed."""
    stopped: Path
    """Begun as `one`, from the first checkpoint on by two processes, of which process 1 got SIGTERM."""
    killed: Path
    """Of two processes, of which process 0 got SIGKILL (any other is missed by its heartbeats only, after a time that
    a busy machine must not make a test wait for)."""
    ended: list


def small_steps(**run: int) -> Experiment:
    """The tiny experiment, shorter, at a thirtieth of its learning rate."""
    optimizer = OptimizerSpec(peak_lr=1e-4, schedule="constant", weight_decay=1e-4, frozen=(FROZEN,))
    experiment = tiny_run(**{"steps": STEPS, "checkpoint_every": SAVED, "keep_checkpoints": 3} | run)
    return experiment.model_copy(update={"optimizer": optimizer})


def order(workdir: Path, *, seeds: tuple[int, int] = (0, 0), signalled: tuple[int, int] | None = None) -> dict:
    """A run for `member.py`; `signalled` is the process that sends itself a signal, and which."""
    experiment = small_steps(evaluate_every=SIGNALLED if signalled else 0)
    experiments = [experiment.model_copy(update={"seed": seed}).model_dump(mode="json") for seed in seeds]
    return {"workdir": str(workdir), "experiments": experiments} | ({"signal": signalled} if signalled else {})


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def assert_losses_close(found: dict[int, float], expected: dict[int, float]) -> None:
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)


@pytest.fixture(scope="module")
def runs(run_data: Path, two_processes: Callable, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    one, two, torn, stopped, killed = (folder / name for name in ("one", "two", "torn", "stopped", "killed"))
    loop.train(small_steps(), one, run_data)
    shutil.copytree(one, stopped)
    for later in saved_steps(stopped / "checkpoints")[1:]:
        shutil.rmtree(stopped / "checkpoints" / str(later))
    ended = two_processes(
        order(two),
        order(torn, seeds=(0, 7)),
        order(stopped, signalled=(1, signal.SIGTERM)),
        order(killed, signalled=(0, signal.SIGKILL)),
    )
    assert all(len(end.results) == 3 for end in ended), [end.stderr[-3000:] for end in ended]
    return Runs(one, two, torn, stopped, killed, ended)


def test_two_processes_have_the_losses_of_one(runs: Runs) -> None:
    assert set(losses(runs.one)) == set(range(1, STEPS + 1))
    assert_losses_close(losses(runs.two), losses(runs.one))
    assert saved_steps(runs.two / "checkpoints") == [4, 8, 12]
    assert [end.results[0] for end in runs.ended] == [{"started_at": 0, "loss": losses(runs.two)[STEPS]}] * 2


def test_processes_that_disagree_are_refused_before_anything_is_written(runs: Runs) -> None:
    for end in runs.ended:
        assert end.results[1]["error"] == "DisagreementError"
        assert end.results[1]["message"].startswith(
            "the processes do not agree: seed is 7 on process 1 and 0 on process 0. Start all of them with the same"
        )
    assert not runs.torn.exists()


def test_sigterm_to_one_stops_both_after_the_same_step(runs: Runs) -> None:
    stopped_at = saved_steps(runs.stopped / "checkpoints")[-1]
    assert SIGNALLED < stopped_at <= SIGNALLED + 2
    said = f"stopped by SIGTERM on process 1 after step {stopped_at} of {STEPS}, which is saved in {runs.stopped}"
    for end in runs.ended:
        assert end.results[2]["error"] == "RunInterrupted"
        assert end.results[2]["message"].startswith(said)


def test_one_process_goes_on_with_a_run_of_two_and_two_with_a_run_of_one(runs: Runs, run_data: Path) -> None:
    """The first updates of one process, then some of two, and the rest of one again."""
    stopped_at = saved_steps(runs.stopped / "checkpoints")[-1]
    assert set(losses(runs.stopped)) == set(range(1, stopped_at + 1))
    assert loop.train(small_steps(), runs.stopped, run_data).started_at == stopped_at
    assert_losses_close(losses(runs.stopped), losses(runs.one))


def test_a_lost_process_stops_the_other_which_says_why(runs: Runs) -> None:
    killed, survivor = runs.ended
    assert killed.exit_code == -signal.SIGKILL
    assert survivor.exit_code == 2
    last_line = survivor.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ecgclip: process 1 of 2 stops because another process of the job was lost")
    assert f"step {SAVED} of {STEPS} is saved in {runs.killed}: start all processes again" in last_line


def test_the_command_started_again_ends_as_if_nothing_had_happened(
    runs: Runs, start: Callable, run_data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.py"
    file.write_text(
        "from ecgclip_jax.spec.experiment import Experiment\n"
        f"def variants():\n    return {{'tiny': Experiment.model_validate_json({small_steps().model_dump_json()!r})}}\n"
    )
    command = ["-m", "ecgclip_jax.cli.main", "train", file, "--workdir", runs.killed, "--data-dir", run_data]
    for process, end in enumerate(start([command] * 2)):
        assert end.exit_code == 0, end.stderr[-3000:]
        found, joined, *_ = end.stderr.splitlines()
        assert found.startswith(f"ecgclip train: process {process} of 2, told explicitly, coordinator 127.0.0.1:")
        assert joined == f"ecgclip train: joined as process {process} of 2 with 4 of 8 cpu devices"
    assert losses(runs.killed) == losses(runs.two)
    jax.tree.map(np.testing.assert_array_equal, load_params(runs.killed)[:2], load_params(runs.two)[:2])
