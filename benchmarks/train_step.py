"""Training step of MERL, four ways: as published, tuned, ours with the text tower in the step, ours.

    python -m benchmarks.train_step                      # everything that fits 7.5 minutes, most important first
    python -m benchmarks.train_step --cases r34_12x5000 --minutes 15 --json step.json

a  MERL's step as published, in PyTorch: fp16 autocast, frozen BERT-base run on 256 tokens in every step
b  the same tuned: bf16, torch.compile, channels last, fused AdamW, TF32, nothing read back, text outputs cached
c  ours with the text tower in the step (train mode, as a)
d  ours: text outputs cached, bf16
e  a with cached text, on CPUs only (there all are float32)

The figures are d/b, two tuned steps, and c/a, two plain ones; d/a mixes a framework with an algorithm. Before any
timing a gate runs all forms from one set of weights, ours in float32: loss, gradient, BatchNorm statistics, three
updates. Each arm has a process of its own; they take turns A B B A on one batch that stays on the device. Our step
begins at stored int16 and prepares the signal; the peers are given float32 that is ready.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.common import Arm, Report, Timing, measure, publish
from benchmarks.processes import ArmError, ArmProcess, OutOfMemory
from benchmarks.step_cases import CASES, TEXT_GFLOP, Case
from ecgclip_jax.parallel.targets import kind_facts

MINUTES: Final = 7.5
SWEEP_FROM, SWEEP_FACTOR, SWEEP_STEP_S = 256, 4, 45.0
REFUSED: Final = "not timed, its forms differ"
LEFT_OUT: Final = "left out: no time (see --minutes and --cases)"
TWO_ARMS_SHARE: Final = 0.6
"""Of a case's time that d and b alone take: where only so much is left, c and a are left out of it."""
LIMITS: Final = {"loss": 1e-4, "gradient": 1e-2, "BatchNorm statistics": 1e-4, "loss after two updates": 1e-2}
"""Relative, of ours in float32 from peers in float64. Rounding may switch ReLUs near zero, which moves the gradient by
3e-3 (ResNet-18) or 7e-3 (ResNet-34), and what follows with it."""


class GateError(ValueError):
    """Forms of a step that are not the same maths: nothing of the case is timed."""


@dataclass(frozen=True)
class Way:
    """One of the ways to make the step: its object and what it is made with."""

    title: str
    module: str
    made_with: dict[str, Any]

    @property
    def peer(self) -> bool:
        """Whether it is PyTorch's."""
        return self.module == "torch_step"

    @property
    def text_in_loop(self) -> bool:
        """Whether the text tower runs in every step."""
        return bool(self.made_with.get("text_in_loop", self.made_with.get("form") == "published"))


WAYS: Final = {
    "d": Way("d: ours", "jax_step", {"text_in_loop": False}),
    "b": Way("b: MERL tuned", "torch_step", {"form": "tuned"}),
    "c": Way("c: ours, text in the step", "jax_step", {"text_in_loop": True}),
    "a": Way("a: MERL as published", "torch_step", {"form": "published"}),
    "e": Way("e: a with text cached", "torch_step", {"form": "published, text cached"}),
}


@dataclass(frozen=True)
class Machine:
    """What both frameworks run on here."""

    ours: dict[str, Any]
    theirs: dict[str, Any] | str
    """Or why PyTorch does not run."""

    @property
    def accelerated(self) -> bool:
        """Whether there is more than a CPU."""
        return bool(self.ours["platform"] != "cpu")

    def absent(self, way: Way) -> str | None:
        """Why a way cannot run here; None where it can."""
        if not way.peer:
            return None
        if isinstance(self.theirs, str):
            return f"PyTorch does not run here ({self.theirs})"
        if self.accelerated and self.theirs["platform"] == "cpu":
            return f"PyTorch {self.theirs['version']} here is built without the accelerator"
        return None


class Clock:
    """What is left of the time that the whole benchmark may take."""

    def __init__(self, minutes: float) -> None:
        self._until_s = time.monotonic() + 60 * minutes

    @property
    def left_s(self) -> float:
        """Seconds."""
        return self._until_s - time.monotonic()


def process(way: Way, scratch: Path) -> ArmProcess:
    """A fresh process for a way; compilers' caches lie in `scratch`, so that none was warm before the benchmark."""
    caches = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"), "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor")}
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    name = "TorchStep" if way.peer else "OurStep"
    return ArmProcess(f"benchmarks.{way.module}", name, caches | memory)


def machine() -> Machine:
    """Asks both frameworks, each in a process that ends at once."""
    with ArmProcess("benchmarks.jax_step", "platform") as asked:
        ours = asked.make()
    with ArmProcess("benchmarks.torch_step", "platform") as asked:
        try:
            theirs: Any = asked.make()
        except ArmError as error:
            theirs = str(error)
    return Machine(ours, theirs)


def gate(case: Case, scratch: Path, here: Machine) -> dict[str, object]:
    """Whether all forms of the step are the same maths, on the CPU, ours in float32; how far they are apart.

    Raises:
        GateError: too far.
    """
    cpu = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    scratch = scratch / case.name
    scratch.mkdir()
    with ArmProcess("benchmarks.jax_step", "write_gate", cpu) as ours:
        written = ours.make(case, scratch)
    forms = {"ours, text cached": {"losses": written["losses_cached"]}}
    if not isinstance(here.theirs, str):
        with ArmProcess("benchmarks.torch_step", "gate", cpu) as theirs:
            forms |= theirs.make(case, scratch)
    found: dict[str, object] = {}
    for form, facts in forms.items():
        first, *_, last = (abs(a / b - 1) for a, b in zip(facts.pop("losses"), written["losses"], strict=True))
        differences = {"loss": first, **facts, "loss after two updates": last}
        for name, value in differences.items():
            if not value <= LIMITS[name]:
                raise GateError(f"{form}: {name} is {value:.1e} from ours (at most {LIMITS[name]:.0e})")
        found[f"gate, {form}"] = ", ".join(f"{name} {value:.0e}" for name, value in differences.items())
    return found


def run(quick: bool) -> list[Report]:
    """The first case alone when quick, else as many as fit."""
    return compare([CASES[0]] if quick else CASES, quick=quick, minutes=MINUTES)


def compare(cases: Sequence[Case], *, quick: bool, minutes: float) -> list[Report]:
    """Gate and timing of each case while time is left, then the sweep over batches of the first one."""
    console, clock, here, reports = Console(stderr=True), Clock(minutes), machine(), list[Report]()
    ways = {key: way for key, way in WAYS.items() if key != "e" or not here.accelerated}
    absent = {key: why for key, way in ways.items() if (why := here.absent(way))}
    ways = {key: way for key, way in ways.items() if key not in absent}
    slowest_s = 0.0
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 4)) as pool:
        scratch = Path(temporary)
        gates = {case: pool.submit(gate, case, scratch, here) for case in cases if here.accelerated}
        wait(gates.values())
        for case in cases:
            if clock.left_s < TWO_ARMS_SHARE * slowest_s:
                reports.append(Report(f"train step {case.name}", "ECG", (), (LEFT_OUT,)))
                continue
            chosen = ways if clock.left_s >= slowest_s else {key: ways[key] for key in ways if key in "db"}
            console.print(f"{case.name}: {', '.join(chosen)} ({clock.left_s:.0f} s left)", highlight=False)
            began_s = time.monotonic()
            try:
                agreed = gates[case].result() if case in gates else gate(case, scratch, here)
            except GateError as error:
                reports.append(Report(f"train step {case.name}", "ECG", (), (f"{REFUSED}: {error}",), refused=True))
                continue
            timed = timing(case, chosen, here, scratch, quick=quick)
            notes = [f"{WAYS[key].title} did not run: {why}" for key, why in absent.items()]
            reports.append(replace(timed, notes=(*timed.notes, *notes), facts=timed.facts | agreed))
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        if here.accelerated and not quick:
            console.print(f"batches of {cases[0].name} up to out of memory ({clock.left_s:.0f} s left)")
            found = {f"batches, {key}": sweep(cases[0], way, scratch, clock) for key, way in ways.items()}
            reports.append(Report(f"batch sweep {cases[0].name}", "ECG", (), (), dict(found)))
    return reports


def timing(case: Case, ways: dict[str, Way], here: Machine, scratch: Path, *, quick: bool) -> Report:
    """All ways of a case at one batch, in turns; a way that fails is named with its reason."""
    batch = (128 if quick else 512) if here.accelerated else 8 if quick else 32
    rounds, window_s = (6, 1.5) if here.accelerated else (3, 0.25) if quick else (5, 1.0)
    notes = ["speeds: d/b compares tuned steps, c/a plain ones; d/a would mix a framework with an algorithm"]
    if not here.accelerated:
        notes.append("on a CPU all arms are float32; the claim belongs to the accelerator")
    facts: dict[str, object] = {"batch": batch}
    with ExitStack() as stack, ThreadPoolExecutor(len(ways)) as pool:
        arms = {key: stack.enter_context(process(way, scratch)) for key, way in ways.items()}
        made = {key: pool.submit(arm.make, case, batch, **ways[key].made_with) for key, arm in arms.items()}
        wait(made.values())
        windows: dict[str, Arm] = {}
        for key, arm in arms.items():
            try:
                made[key].result()
                first = arm.call("first")
                steps = _steps_of_window(arm, window_s, 5 if here.accelerated else 1)
            except ArmError as error:
                notes.append(f"{ways[key].title} did not run: {error}")
                arm.close()
                continue
            facts[f"{key}: compilation and first step"] = f"{first['first_step_s']:.1f} s, {first['precision']}"
            windows[key] = Arm(ways[key].title, _Window(arm, steps), batch * steps)
        timings = measure(list(windows.values()), quick=quick, rounds=rounds, sample_s=0)
        of = dict(zip(windows, timings, strict=True))
        facts = headline(of) | facts | _figures(case, of, here, {key: arms[key].call("peak_bytes") for key in of})
    return Report(f"train step {case.name}", "ECG", timings, tuple(notes), facts)


class _Window:
    """So many steps of an arm, asked for at once."""

    def __init__(self, arm: ArmProcess, steps: int) -> None:
        self._arm, self._steps = arm, steps

    def __call__(self) -> None:
        self._arm.call("steps", self._steps)


def _steps_of_window(arm: ArmProcess, window_s: float, some: int = 5) -> int:
    """As many steps as fill a window, after a warm-up."""
    arm.call("steps", some)
    began_s = time.monotonic()
    arm.call("steps", some)
    return max(1, math.ceil(window_s * some / (time.monotonic() - began_s)))


def headline(of: dict[str, Timing]) -> dict[str, object]:
    """How many times faster one arm is than another, for the pairs that may be compared.

    Beside other work PyTorch's threads wait spinning, in wall and in CPU time, and jax's do not: a ratio of disturbed
    samples flatters us, and says so.
    """
    found: dict[str, object] = {}
    for pair in ("d/b", "c/a", "d/e"):
        fast, slow = (of.get(key) for key in pair.split("/"))
        if fast is not None and slow is not None:
            doubt = "" if fast.clean and slow.clean else ": disturbed, in our favour, proves nothing"
            found[pair] = f"{slow.median_s / fast.median_s:.2f}{doubt}"
    return found


def _figures(case: Case, of: dict[str, Timing], here: Machine, peaks: dict[str, int | None]) -> dict[str, object]:
    """Throughput of each arm, in FLOPs of the model and against what the device can do."""
    device, found = kind_facts(here.ours["kind"]), dict[str, object]()
    for key, timed in of.items():
        gflop = case.gflop + (TEXT_GFLOP if WAYS[key].text_in_loop else 0)
        rate = 1 / timed.median_s
        words = [
            f"{rate:,.1f} ECG/s (best {1 / min(timed.seconds_per_item):,.1f})",
            f"{rate * gflop / 1e3:.3g} TFLOP/s",
        ]
        if device is not None:
            words.append(f"MFU {rate * gflop * 1e9 / device.bfloat16_flops:.1%}")
            if case.roof_ecg_per_s and here.ours["kind"] == "NVIDIA H200" and not WAYS[key].text_in_loop:
                words.append(f"{rate / case.roof_ecg_per_s:.1%} of the roof without own kernels")
        peak = peaks[key]
        if peak is not None:
            words.append(f"peak {peak / 2**30:.1f} GiB")
        found[key] = ", ".join(words)
    return found


def sweep(case: Case, way: Way, scratch: Path, clock: Clock) -> str:
    """Batches from 256 in factors of 4 until memory or time ends; ECG/s of each."""
    words, batch = list[str](), SWEEP_FROM
    with process(way, scratch) as arm:
        while clock.left_s > SWEEP_STEP_S:
            try:
                arm.make(case, batch, **way.made_with)
                arm.call("first")
                steps = _steps_of_window(arm, 1.0)
                began_s = time.monotonic()
                arm.call("steps", steps)
                words.append(f"{batch:,}: {steps * batch / (time.monotonic() - began_s):,.0f} ECG/s")
            except OutOfMemory:
                return ", ".join([*words, f"{batch:,}: out of memory"])
            except ArmError as error:
                return ", ".join([*words, f"{batch:,}: {error}"])
            batch *= SWEEP_FACTOR
    return ", ".join([*words, f"{batch:,} and more: no time left"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first case, a small batch, a few short windows")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="only these")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing that would take longer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write samples, facts and environment")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if case.name in (arguments.cases or [case.name])]
    reports = compare(chosen[:1] if arguments.quick else chosen, quick=arguments.quick, minutes=arguments.minutes)
    publish(reports, arguments.json)


if __name__ == "__main__":
    main()
