"""A few real training steps, timed and traced: where their time goes, and what they wait for.

Steps are first timed without the profiler, which slows them down, then traced. The trace gives the time of each kernel
of the very program that ran; the program itself tells what the kernel is for, and how many bytes it moves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from ecgclip_jax.contracts import Batch
from ecgclip_jax.models.build import ECG_TOWER, TEXT_TOWER
from ecgclip_jax.parallel.hlo_cost import Kernel, kernels
from ecgclip_jax.parallel.host import process_rows, replicated
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.op_times import OpTimes, TraceError, read_op_times
from ecgclip_jax.parallel.targets import attached
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.training.feed import Feed
from ecgclip_jax.training.gradients import PREPROCESSING
from ecgclip_jax.training.loop import build_feed, build_pipeline, resolved
from ecgclip_jax.training.program import CompiledStep, compile_parts
from ecgclip_jax.training.run_folder import open_run_folder
from ecgclip_jax.training.starting import start_state
from ecgclip_jax.training.state import TrainState, build_parts
from ecgclip_jax.training.step import UPDATE

WARM_UP_STEPS = 2
RUN_FOLDER, TRACE_FOLDER, PROGRAM_FILE = "run", "trace", "program.hlo"
PARTS = {
    PREPROCESSING: "preprocessing",
    ECG_TOWER: "ECG tower",
    TEXT_TOWER: "text tower",
    UPDATE: "optimizer",
}
"""Parts of a step, by the name under which their operations stand in the program."""
REST = "heads, loss, rest"


class ProfileError(UserError):
    """Steps that cannot be profiled; the message says why and what to do."""


@dataclass(frozen=True)
class KindTime:
    """All kernels of one kind in one part of a step, per step and device."""

    part: str
    kind: str
    forward_s: float
    backward_s: float
    n_bytes: float
    """Bytes that they move, as counted from the program."""
    runs: float

    @property
    def seconds(self) -> float:
        """Both passes together."""
        return self.forward_s + self.backward_s


@dataclass(frozen=True)
class StepProfile:
    """Some steps of an experiment on this process's devices."""

    step: CompiledStep
    vocab_size: int
    steps: int
    step_s: float
    """Mean of the steps that were timed without the profiler."""
    traced_step_s: float
    """Mean of those under it."""
    input_share: float
    """Share of the time in which the devices had nothing to do and a batch was still being prepared, at most."""
    kinds: list[KindTime]
    """From the slowest to the fastest; empty where the trace tells nothing of kernels."""
    of_devices: bool
    """Whether devices told the kernels' times; else they are spans in the host's threads, which may overlap."""

    @property
    def kernel_s(self) -> float:
        """Time of all kernels, per step and device."""
        return sum(kind.seconds for kind in self.kinds)

    @property
    def ecg_per_s(self) -> float:
        """Global throughput of the steps that were timed without the profiler."""
        return self.step.experiment.data.batch_global / self.step_s

    @property
    def roofline_share(self) -> float | None:
        """Of the throughput that the devices' peaks would allow this program; None where their peaks are not known."""
        return None if self.step.roofline is None else self.step.roofline.bound_s / self.step_s


def profile(experiment: Experiment, folder: Path, data_dir: Path, steps: int) -> StepProfile:
    """Trains `experiment` for a few steps from its first state; trace, program and what a run opens go to `folder`.

    Raises:
        ProfileError: a job of several processes. UserError: as training raises.
    """
    if jax.process_count() > 1:
        raise ProfileError("a profile is of one process; start it on one host, with --mesh.data of its devices")
    experiment = resolved(experiment)
    mesh = build_mesh(experiment.mesh)
    process_rows(mesh, experiment.data.batch_global // experiment.memory.micro_batches)
    run = open_run_folder(experiment, folder / RUN_FOLDER, data_dir, resume=True)
    parts = build_parts(experiment, run.facts["vocab_size"])
    compiled = compile_parts(parts, attached(list(mesh.devices.flat)))
    if compiled.executable is None or compiled.text is None or compiled.program is None:
        raise ProfileError(
            "the step does not fit the device; `ecgclip compile` says what it needs and which settings would help"
        )
    (folder / PROGRAM_FILE).write_text(compiled.text, encoding="utf-8")
    state = start_state(parts, mesh)
    feed = build_feed(parts, mesh, run, build_pipeline(experiment, run), state)
    with closing(feed.batches(0)) as batches:
        running = _Running(compiled, feed, state, batches)
        running.go(WARM_UP_STEPS)
        feed.waited_s()
        step_s = running.go(steps) / steps
        input_share = feed.waited_s() / (step_s * steps)
        with _traced(folder / TRACE_FOLDER):
            traced_step_s = running.go(steps) / steps
    times = read_op_times(folder / TRACE_FOLDER, module_name(compiled.text))
    found = kernels(compiled.program, on_chip_spaces=mesh.devices.flat[0].platform == "tpu")
    kinds = kind_times(found, times, runs_of_step=steps * mesh.size)
    compiled = replace(compiled, program=None, executable=None)
    vocab_size = run.facts["vocab_size"]
    return StepProfile(compiled, vocab_size, steps, step_s, traced_step_s, input_share, kinds, times.of_devices)


class _Running:
    def __init__(self, compiled: CompiledStep, feed: Feed, state: TrainState, batches: Iterator[Batch]) -> None:
        assert compiled.executable is not None
        self._mesh, self._executable = compiled.mesh, compiled.executable
        self._feed, self._state, self._batches = feed, state, batches
        self._operators = jax.device_put(build_operators(compiled.experiment.signal), replicated(compiled.mesh))

    def go(self, steps: int) -> float:
        """Seconds of so many steps from the first batch asked for to the last result, dispatched as training does."""
        began_s = time.monotonic()
        for number in range(steps):
            batch = next(self._batches)
            with jax.set_mesh(self._mesh), jax.profiler.StepTraceAnnotation("train", step_num=number):
                self._state, metrics = self._executable(self._operators, self._state, batch)
            self._feed.note(metrics["finite"])
        jax.block_until_ready(self._state)
        return time.monotonic() - began_s


@contextmanager
def _traced(folder: Path) -> Iterator[None]:
    # Python's own calls would make most of the file and slow the steps down.
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    try:
        with jax.profiler.trace(folder, profiler_options=options):
            yield
    except (OSError, RuntimeError) as error:
        raise TraceError(f"no trace could be written to {folder} ({error}); is another profiler running?") from error


def module_name(text: str) -> str:
    """Name of a compiled program, from its text."""
    return text.removeprefix("HloModule ").split(",", 1)[0].split(maxsplit=1)[0]


def kind_times(found: dict[str, Kernel], times: OpTimes, *, runs_of_step: int) -> list[KindTime]:
    """Kernels with their times by part of the step and kind, the slowest first; names of no kernel do not count.

    Args:
        found: the program's kernels by name.
        times: of a trace.
        runs_of_step: how often the program ran in it, all devices together.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for name, seconds in times.seconds.items():
        kernel = found.get(name)
        if kernel is None:
            continue
        backward = "transpose(" in kernel.op_name
        entry = sums.setdefault((part_of(kernel.op_name), kernel.kind), [0.0, 0.0, 0.0, 0.0])
        for place, value in ((backward, seconds), (2, kernel.n_bytes * times.runs[name]), (3, times.runs[name])):
            entry[place] += value / runs_of_step
    kinds = [KindTime(part, kind, *entry) for (part, kind), entry in sums.items()]
    return sorted(kinds, key=lambda kind: -kind.seconds)


def part_of(op_name: str) -> str:
    """Part of a step that an operation of the traced program belongs to."""
    return next((part for scope, part in PARTS.items() if scope in op_name), REST)
