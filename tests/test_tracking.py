"""Trackers: lines that are on the disk, curves that a resume does not double, a console that is not chatty."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ecgclip_jax import tracking
from ecgclip_jax.tracking import ConsoleProgress, JsonLines, NullTracker, TrackingError, build_tracker


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_are_written_at_once(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "m.jsonl", 0)
    lines.log(1, {"loss": 2.5, "grad_norm": float("nan")})
    found = json.loads((tmp_path / "m.jsonl").read_text())
    assert (found["step"], found["loss"], found["grad_norm"]) == (1, 2.5, None)
    lines.close()


def test_a_resume_drops_later_lines_and_an_unfinished_one(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path, 0)
    for step in range(1, 8):
        lines.log(step, {"loss": 1.0})
    lines.close()
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    resumed = JsonLines(path, 4)
    resumed.log(5, {"loss": 0.5})
    resumed.close()
    assert steps_in(path) == [1, 2, 3, 4, 5]


def test_a_run_is_tracked_in_its_folder(tmp_path: Path) -> None:
    with build_tracker(tmp_path, 10, 0) as tracker:
        tracker.log(1, {"loss": 1.0})
    assert steps_in(tmp_path / "metrics.jsonl") == [1]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.jax, "process_index", lambda: 1)
    with build_tracker(tmp_path, 10, 0) as tracker:
        tracker.log(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())
    NullTracker().close()


def test_without_a_terminal_a_line_comes_first_last_and_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now_s)
    text = io.StringIO()
    progress = ConsoleProgress(100, 0, Console(file=text, width=200))
    for step in range(1, 101):
        now_s += 1.0
        progress.log(step, {"loss": 3.14159, "ecg_per_s": 1234.5, "eta_s": 3725.0})
    progress.close()
    lines = text.getvalue().splitlines()
    assert lines[0] == "step 1/100  loss 3.142  1234 ECG/s  1 h 02 min left"
    assert lines[-1].startswith("step 100/100")
    assert len(lines) == 6


def test_on_a_terminal_a_bar_shows_the_numbers() -> None:
    text = io.StringIO()
    progress = ConsoleProgress(10, 4, Console(file=text, force_terminal=True, width=120))
    progress.log(5, {"loss": 1.5})
    progress.close()
    assert "5/10" in text.getvalue()
    assert "loss 1.5" in text.getvalue()


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tracker = build_tracker(tmp_path, 10, 0)
    monkeypatch.setattr(tracking.os, "fsync", full)
    with pytest.raises(TrackingError, match=r"metrics .* cannot be written \(No space left on device\); free some"):
        tracker.log(1, {"loss": 1.0})
    monkeypatch.undo()
    tracker.close()
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="cannot be written"):
        build_tracker(tmp_path / "file", 10, 0)
