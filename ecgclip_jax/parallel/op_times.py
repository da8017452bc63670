"""How long each instruction of a compiled program took, read from a trace that jax's profiler wrote.

A trace has a plane for each device (GPU, TPU) and one for the host; on CPU devices the instructions run in the host's
threads. What a trace calls an instruction is its name in the compiled program, so `parallel.hlo_cost` knows the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jax.profiler import ProfileData, ProfileEvent, ProfilePlane

from ecgclip_jax.spec.errors import UserError

_TPU_OPS = "XLA Ops"
"""The line of a plane that lists instructions, where it has one; other lines group the same time by other things."""
_NAMED = re.compile(r"%?([\w.\-]+)")
_END = "end: "


class TraceError(UserError):
    """A trace that is not there or that tells nothing of a program; the message says what to do."""


@dataclass
class OpTimes:
    """Seconds and runs of every instruction of a program, over all devices and steps of a trace."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    runs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    of_devices: bool = False
    """Whether devices told these times themselves; else they are spans in the host's threads, which may overlap."""

    def add(self, name: str, nanoseconds: float) -> None:
        """Counts one run of an instruction."""
        self.seconds[name] += nanoseconds / 1e9
        self.runs[name] += 1


def read_op_times(folder: Path, module: str) -> OpTimes:
    """Times of the instructions of program `module` in the newest trace under `folder`.

    Args:
        folder: what `jax.profiler.trace` was given.
        module: the program's name, as `HloModule` has it in its text.

    Raises:
        TraceError: no trace there.
    """
    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise TraceError(f"no trace (plugins/profile/*/*.xplane.pb) under {folder}; the profiler wrote nothing")
    planes = list(ProfileData.from_file(str(files[-1])).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    times = OpTimes(of_devices=True)
    for plane in devices:
        for name, nanoseconds in _on_device(plane, module):
            times.add(name, nanoseconds)
    if times.runs:
        return times
    times = OpTimes()
    for plane in planes:
        if plane.name == "/host:CPU":
            for name, nanoseconds in _in_threads(plane, module):
                times.add(name, nanoseconds)
    return times


def _on_device(plane: ProfilePlane, module: str) -> Iterator[tuple[str, float]]:
    lines = list(plane.lines)
    listed = [line for line in lines if line.name == _TPU_OPS]
    for line in listed or lines:
        for event in line.events:
            facts = dict(event.stats)
            if str(facts.get("hlo_module", module)).split("(")[0] != module:
                continue
            name = str(facts.get("hlo_op", "")) or (_instruction(event.name) if listed else "")
            if name:
                yield name, event.duration_ns


def _instruction(text: str) -> str:
    """TPUs name an event by its whole instruction, `%fusion.3 = bf16[8,128] fusion(…)`."""
    found = _NAMED.match(text)
    return found.group(1) if found else ""


def _in_threads(plane: ProfilePlane, module: str) -> Iterator[tuple[str, float]]:
    """XLA:CPU starts a large instruction in one event and says in another, by the same number, when it has ended."""
    events = [event for line in plane.lines for event in line.events]
    ends: dict[tuple[str, object], list[float]] = defaultdict(list)
    for event in events:
        if event.name.startswith(_END):
            ends[event.name.removeprefix(_END), dict(event.stats).get("_c")].append(event.start_ns)
    for times in ends.values():
        times.sort()
    for event in events:
        facts = dict(event.stats)
        name = str(facts.get("hlo_op", ""))
        if name and facts.get("hlo_module") == module:
            yield name, _span(event, ends.get((name, facts.get("_p")), []))


def _span(event: ProfileEvent, ends: list[float]) -> float:
    after = bisect_left(ends, event.start_ns)
    ended = ends[after] - event.start_ns if after < len(ends) else 0.0
    return max(float(event.duration_ns), ended)
