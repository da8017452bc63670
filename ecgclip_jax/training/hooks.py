"""What happens between steps: periodic actions, the watch for a loss that is not finite, and being asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType

import jax
from jax.sharding import Mesh

from ecgclip_jax.objectives.reference import Metrics
from ecgclip_jax.parallel.agreement import Vote
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.training.state import TrainState

Action = Callable[[int, TrainState, Metrics], None]
"""Called with the number of updates made, the state after them, and the metrics of the last one (on the device)."""


_SIGNALS_AT_MOST = 128


class NonFiniteLossError(UserError):
    """Loss or gradients of a step are not finite; the message names the records of its batch."""


class RunInterrupted(UserError):
    """The process was asked to stop; the run is saved and goes on when it is started again."""


@dataclass(frozen=True)
class Hook:
    """An action after every `every`-th step and after the last one; never with `every` 0."""

    every: int
    action: Action

    def due(self, step: int, last_step: int) -> bool:
        """Whether the action follows update number `step` (counted from 1)."""
        return self.every > 0 and (step % self.every == 0 or step == last_step)


class FiniteWatch:
    """Stops a run whose loss or gradients are not finite, one step late so that the device is never waited for.

    What must not happen to a broken state (saving, evaluating) calls `check` first.
    """

    def __init__(self, records_of: Callable[[int], list[str]], last_good: Callable[[], int | None]) -> None:
        self._records_of, self._last_good = records_of, last_good
        self._pending: tuple[int, Metrics] | None = None

    def note(self, step: int, metrics: Metrics) -> None:
        """Takes over the metrics of update `step` and checks the update before it.

        Raises:
            NonFiniteLossError: as `check`.
        """
        self.check()
        self._pending = step, metrics

    def check(self) -> None:
        """Waits for the last update and checks it.

        Raises:
            NonFiniteLossError: loss or gradient norm is not finite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        if float(metrics["finite"]) == 1:
            return
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        last = self._last_good()
        kept = "no checkpoint was written yet" if last is None else f"the last good checkpoint, step {last}, is kept"
        raise NonFiniteLossError(
            f"loss {loss:.6g} and gradient norm {norm:.6g} at update {step} (global batch {step - 1}); {kept}. "
            f"Look at the batch's records, lower optimizer.peak_lr or set optimizer.clip_norm. "
            f"Records: {', '.join(self._records_of(step - 1))}"
        )


class StopRequest:
    """While it is open, SIGTERM and SIGINT ask for a stop between two steps; a second one ends this process at once.

    A signal to one process of a job stops all of them after the same step: each passes what it has received to the
    others behind every step. Outside the main thread signals cannot be taken over, and nothing happens.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, mesh: Mesh) -> None:
        self._received = 0
        self._before: dict[int, object] = {}
        self._vote = Vote(mesh) if jax.process_count() > 1 else None
        self._cast: jax.Array | None = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def reason(self) -> str | None:
        """Why to stop now, the same on all processes; to be asked once after each step.

        With several processes it is what they had received by the end of the step before: that vote is counted when
        that step is done, so nobody waits for it.
        """
        if self._vote is None:
            return signal.Signals(self._received).name if self._received else None
        ballot = jax.process_index() * _SIGNALS_AT_MOST + self._received if self._received else 0
        before, self._cast = self._cast, self._vote.cast(ballot)
        process, number = divmod(0 if before is None else int(before), _SIGNALS_AT_MOST)
        return f"{signal.Signals(number).name} on process {process}" if number else None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
