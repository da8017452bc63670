"""Two processes of four CPU devices train as one process of eight; they stop together, and lose nothing by it.

One job does three runs in a row, since starting processes and compiling is most of the time: a whole run; one that
goes on from a checkpoint of a single process and is asked to stop by SIGTERM to one of the two; one that loses a
process to SIGKILL. A second job goes on with the last.

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
from support.tiny_training import FROZEN, STEPS, tiny_run

from ecgclip_jax.checkpoints import load_params, saved_steps
from ecgclip_jax.spec.experiment import Experiment, OptimizerSpec
from ecgclip_jax.training import loop


@dataclass(frozen=True)
class Runs:
    """Run folders, and how the job that made the three of two processes ended."""

    one: Path
    """A whole run of one process with eight devices."""
    two: Path
    """The same of two processes with four each."""
    stopped: Path
    """Begun as `one`, from update 10 on by two processes, of which process 1 got SIGTERM after update 14."""
    killed: Path
    """Of two processes, of which process 0 got SIGKILL after update 14 (any other is missed by its heartbeats only,
    after a time that a busy machine must not make a test wait for)."""
    ended: list


def small_steps(**run: int) -> Experiment:
    """The tiny experiment at a tenth of its learning rate."""
    optimizer = OptimizerSpec(peak_lr=3e-4, schedule="constant", weight_decay=1e-4, frozen=(FROZEN,))
    return tiny_run(**run).model_copy(update={"optimizer": optimizer})


def order(workdir: Path, *signalled: int) -> dict:
    """A run for `member.py`; `signalled` is the process, the signal and the update after which it comes."""
    experiment = small_steps(evaluate_every=signalled[-1] if signalled else 0).model_dump(mode="json")
    return {"workdir": str(workdir), "experiment": experiment} | ({"signal": signalled} if signalled else {})


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def assert_losses_close(found: dict[int, float], expected: dict[int, float]) -> None:
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)


@pytest.fixture(scope="module")
def runs(run_data: Path, two_processes: Callable, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    one, two, stopped, killed = (folder / name for name in ("one", "two", "stopped", "killed"))
    loop.train(small_steps(keep_checkpoints=3), one, run_data)
    shutil.copytree(one, stopped)
    for later in (20, STEPS):
        shutil.rmtree(stopped / "checkpoints" / str(later))
    ended = two_processes(order(two), order(stopped, 1, signal.SIGTERM, 14), order(killed, 0, signal.SIGKILL, 14))
    assert all(len(end.results) == 2 for end in ended), [end.stderr[-3000:] for end in ended]
    return Runs(one, two, stopped, killed, ended)


def test_two_processes_have_the_losses_of_one(runs: Runs) -> None:
    assert set(losses(runs.one)) == set(range(1, STEPS + 1))
    assert_losses_close(losses(runs.two), losses(runs.one))
    assert saved_steps(runs.two / "checkpoints") == [20, STEPS]
    assert [end.results[0] for end in runs.ended] == [{"started_at": 0, "loss": losses(runs.two)[STEPS]}] * 2


def test_sigterm_to_one_stops_both_after_the_same_step(runs: Runs) -> None:
    stopped_at = saved_steps(runs.stopped / "checkpoints")[-1]
    assert 14 < stopped_at <= 16
    for end in runs.ended:
        assert end.results[1]["error"] == "RunInterrupted"
        said = f"stopped by SIGTERM on process 1 after step {stopped_at} of {STEPS}, which is saved in {runs.stopped}"
        assert end.results[1]["message"].startswith(said)


def test_one_process_goes_on_with_a_run_of_two_and_two_with_a_run_of_one(runs: Runs, run_data: Path) -> None:
    """Updates 1 to 10 of one process, then some of two, and the rest of one again."""
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
    assert f"step 10 of {STEPS} is saved in {runs.killed}: start all processes again" in last_line


def test_both_started_again_end_as_if_nothing_had_happened(runs: Runs, two_processes: Callable) -> None:
    ended = two_processes(order(runs.killed))
    assert [end.results[0]["started_at"] for end in ended] == [10, 10], [end.stderr[-3000:] for end in ended]
    assert [end.exit_code for end in ended] == [0, 0]
    assert losses(runs.killed) == losses(runs.two)
    jax.tree.map(np.testing.assert_array_equal, load_params(runs.killed)[:2], load_params(runs.two)[:2])
