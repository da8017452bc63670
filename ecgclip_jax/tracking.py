"""Where a run's numbers go: JSON lines, TensorBoard, the console. Only process 0 writes.

A resumed run goes on from its checkpoint, which may lie before the last lines it wrote: lines after the restored step
are removed when a file is opened again, so that no curve runs twice over the same steps.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.whole_file import whole_file

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
_LINE_EVERY_S = 20.0


class TrackingError(UserError):
    """Numbers of a run that cannot be written; the message says where, why and what to do."""


@runtime_checkable
class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note `values` after `step` updates."""
        ...

    def close(self) -> None:
        """Write out what is left."""
        ...


class NullTracker:
    """Notes nothing: the other processes, and tests."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class JsonLines:
    """One JSON object per call in `path`, on the disk when `log` returns; numbers that are not finite become null."""

    def __init__(self, path: Path, start_step: int) -> None:
        keep_steps_up_to(path, start_step)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Appends `{"step": …, "time_s": …, name: value …}`."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time_s": round(time.time(), 3)} | finite) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard:
    """Scalars for TensorBoard, which is told to forget what lies after the restored step."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboardX import SummaryWriter  # which imports PyTorch where there is one

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar per name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class ConsoleProgress:
    """A progress bar with loss, ECG/s and the time that is left; where nobody watches, a line now and then."""

    def __init__(self, total_steps: int, start_step: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._total, self._last_line_s = total_steps, -math.inf
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task("training", total=total_steps, completed=start_step, numbers="")
            self._progress.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the step; `loss`, `ecg_per_s` and `eta_s` by name."""
        numbers = _summary(values)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, numbers=numbers)
        elif step == self._total or time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._console.print(f"step {step}/{self._total}  {numbers}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the bar where it stands."""
        if self._progress is not None:
            self._progress.stop()


class CompositeTracker:
    """Several trackers as one; a context manager that closes them all."""

    def __init__(self, trackers: Sequence[Tracker], folder: Path) -> None:
        """`folder` is where they write, for a message if they cannot."""
        self._trackers, self._folder = trackers, folder

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Passes the numbers to each.

        Raises:
            TrackingError: a disk that is full, a folder that is gone.
        """
        with _writing(self._folder):
            for tracker in self._trackers:
                tracker.log(step, values)

    def close(self) -> None:
        """Closes each.

        Raises:
            TrackingError: as `log`.
        """
        with _writing(self._folder), ExitStack() as closing:
            for tracker in self._trackers:
                closing.callback(tracker.close)

    def __enter__(self) -> CompositeTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TrackingError:
            if error is None:  # else what went wrong first is what matters
                raise


def build_tracker(workdir: Path, total_steps: int, start_step: int) -> CompositeTracker:
    """The trackers of a run that begins after `start_step` updates; nothing on any process but the first.

    Raises:
        TrackingError: a disk that is full, no permission.
    """
    if jax.process_index() != 0:
        return CompositeTracker([NullTracker()], workdir)
    with _writing(workdir):
        return CompositeTracker(
            [
                JsonLines(workdir / METRICS_FILE, start_step),
                TensorBoard(workdir / TENSORBOARD_FOLDER, start_step),
                ConsoleProgress(total_steps, start_step),
            ],
            workdir,
        )


@contextmanager
def counting(task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar for work that is counted in `unit`; gives a function that is told how many more are done.

    Where nobody watches, a line now and then and one at the end; only on process 0.
    """
    console, began_s = Console(stderr=True, quiet=jax.process_index() != 0), time.monotonic()
    columns = (TextColumn(task), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    count, last_line_s = done, began_s
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        number = bar.add_task(task, total=total, completed=done, rate="")

        def advance(more: int) -> None:
            nonlocal count, last_line_s
            count, now_s = count + more, time.monotonic()
            rate = f"{(count - done) / max(now_s - began_s, 1e-9):,.0f} {unit}/s"
            bar.update(number, completed=count, rate=rate)
            if not console.is_terminal and (count == total or now_s - last_line_s >= _LINE_EVERY_S):
                last_line_s = now_s
                console.print(f"{task} {count:,}/{total:,}  {rate}", highlight=False, soft_wrap=True)

        yield advance


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"the metrics of the run in {folder} cannot be written ({error.strerror or error}); free some space or "
            "mend the folder and start the same command again: the run goes on from its newest checkpoint"
        ) from error


def keep_steps_up_to(path: Path, step: int) -> None:
    """Removes lines of later steps from a metrics file, and a last line that a killed run left unfinished."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with whole_file(path) as part:
        part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _summary(values: Mapping[str, float]) -> str:
    parts = []
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4g}")
    if "ecg_per_s" in values:
        parts.append(f"{values['ecg_per_s']:.0f} ECG/s")
    if "eta_s" in values:
        parts.append(f"{_duration(values['eta_s'])} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
