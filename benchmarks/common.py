"""What every benchmark shares: arms measured in turns, a guard against a busy machine, one table, one JSON form.

A benchmark module has `run(quick) -> Report`, and its `main` is `common.main(run, __doc__)`. Peers are arms of the same
run: A B B A … on the same machine in the same minute. A sample during which other processes used more than
`OTHERS_LIMIT` of the machine is discarded, measured again, and counted. Where no clean sample could be had the figures
are of disturbed ones and say so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

OTHERS_LIMIT: Final = 0.08
"""Share of the machine that other processes may use during a sample."""
ATTEMPTS: Final = 3
"""How often a disturbed sample is measured before its last form is kept as disturbed."""
_TICKS_PER_S: Final[int] = os.sysconf("SC_CLK_TCK")
_REPORTED_PACKAGES: Final = (
    "numpy", "scipy", "wfdb", "jax", "jaxlib", "flax", "optax", "grain", "scikit-learn", "torch", "transformers",
)  # fmt: skip
_GPU_FACTS: Final = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit"


@dataclass(frozen=True)
class Arm:
    """One thing to time: `run()` handles `items` pieces of work (ECGs, steps …) and waits until they are done."""

    name: str
    run: Callable[[], object]
    items: int = 1


@dataclass(frozen=True)
class Timing:
    """Samples of one arm, in seconds per item."""

    name: str
    seconds_per_item: tuple[float, ...]
    cpu_s_per_item: float
    """Median processor seconds, all threads: comparable between single-threaded arms even on a busy machine."""
    clean: bool
    """False where no undisturbed sample could be had."""
    n_discarded: int

    @property
    def median_s(self) -> float:
        """Median seconds per item."""
        return statistics.median(self.seconds_per_item)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median; NaN for fewer than four samples."""
        if len(self.seconds_per_item) < 4:
            return math.nan
        low, _, high = statistics.quantiles(self.seconds_per_item, n=4)
        return (high - low) / self.median_s


@dataclass(frozen=True)
class Report:
    """Outcome of one benchmark: ours is the first arm, the others are its peers."""

    name: str
    item: str
    """What is counted, as `ECG`."""
    timings: tuple[Timing, ...]
    notes: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    """Figures that are no times (differences from the peer, counts, sizes)."""
    refused: bool = False
    """Its parity gate found the forms to differ, so nothing was timed."""

    def ratios(self) -> dict[str, float]:
        """How many times faster the first arm is than each of the others (medians)."""
        if not self.timings:
            return {}
        ours, *peers = self.timings
        return {peer.name: peer.median_s / ours.median_s for peer in peers}


def measure(
    arms: Sequence[Arm], *, quick: bool, rounds: int | None = None, sample_s: float | None = None, warm: bool = False
) -> tuple[Timing, ...]:
    """Times arms in turns, in alternating order, and discards samples taken while the machine was busy.

    Args:
        arms: each is run once untimed first (compilation, caches).
        quick: 3 rounds of samples of at least 0.25 s; otherwise 9 of 1 s.
        rounds: overrides the number of rounds.
        sample_s: overrides the least duration of a sample; `run` is repeated until it is reached.
        warm: the arms have run before and take long: each sample is one run, and no other precedes it.
    """
    rounds = rounds or (3 if quick else 9)
    sample_s = sample_s if sample_s is not None else (0.25 if quick else 1.0)
    repeats = {arm.name: 1 if warm else _calibrate(arm, sample_s) for arm in arms}
    clean: dict[str, list[_Sample]] = {arm.name: [] for arm in arms}
    disturbed: dict[str, list[_Sample]] = {arm.name: [] for arm in arms}
    for turn in range(rounds):
        for arm in arms if turn % 2 == 0 else reversed(arms):
            for _ in range(ATTEMPTS):
                sample = _sample(arm.run, repeats[arm.name], repeats[arm.name] * arm.items)
                if sample.others <= OTHERS_LIMIT:
                    clean[arm.name].append(sample)
                    break
                disturbed[arm.name].append(sample)
    return tuple(_timing(arm.name, clean[arm.name], disturbed[arm.name]) for arm in arms)


def _timing(name: str, clean: list[_Sample], disturbed: list[_Sample]) -> Timing:
    samples = clean or disturbed
    return Timing(
        name=name,
        seconds_per_item=tuple(sample.wall_s for sample in samples),
        cpu_s_per_item=statistics.median(sample.cpu_s for sample in samples),
        clean=bool(clean),
        n_discarded=len(disturbed) if clean else 0,
    )


def _calibrate(arm: Arm, sample_s: float) -> int:
    """Repeats that make a sample long enough, after one untimed call."""
    arm.run()
    started = time.perf_counter()
    arm.run()
    return max(1, math.ceil(sample_s / max(time.perf_counter() - started, 1e-9)))


class _Sample(NamedTuple):
    """Wall and processor seconds per item, and the share of the machine that other processes used meanwhile."""

    wall_s: float
    cpu_s: float
    others: float


def _sample(run: Callable[[], object], repeats: int, items: int) -> _Sample:
    machine, own, started = _machine_busy_s(), _own_cpu_s(), time.perf_counter()
    for _ in range(repeats):
        run()
    wall_s = time.perf_counter() - started
    own_s, machine_after = _own_cpu_s() - own, _machine_busy_s()
    others = 0.0
    if machine is not None and machine_after is not None:
        others = max(machine_after - machine - own_s, 0.0) / (wall_s * (os.cpu_count() or 1))
    return _Sample(wall_s / items, own_s / items, others)


def _own_cpu_s() -> float:
    """Of this process and of all below it, whether they still run or ended."""
    times = os.times()
    # This process's own clock is finer than the 10 ms ticks of `times`.
    return time.process_time() + times.children_user + times.children_system + _cpu_below_s(os.getpid())


def _cpu_below_s(pid: int) -> float:
    """Of the running processes below one (a server forks its workers), and of those that they waited for."""
    children: dict[int, list[tuple[int, float]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, parent, *fields = path.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):  # it ended meanwhile
            continue
        ticks = sum(int(ticks) for ticks in fields[9:13])  # user, system, and the same of children
        children.setdefault(int(parent), []).append((int(path.parent.name), ticks / _TICKS_PER_S))
    below = [*children.get(pid, ())]
    for child, _ in below:
        below += children.get(child, ())
    return float(sum(cpu_s for _, cpu_s in below))


def _machine_busy_s() -> float | None:
    """Seconds all cores were busy since boot; None where the system does not tell (then nothing is discarded)."""
    try:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / _TICKS_PER_S


def environment() -> dict[str, object]:
    """Machine, versions and commit a figure belongs to."""
    packages = {}
    for name in _REPORTED_PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
        "packages": packages,
        "commit": _commit(),
        "guard": "discards by /proc/stat" if _machine_busy_s() is not None else "none: the system does not tell",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _gpus() -> list[str]:
    """Name, driver, memory, clocks and power limit of each NVIDIA GPU; none where its tool is not there."""
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_GPU_FACTS}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.strip().splitlines()


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def table(reports: Sequence[Report]) -> Table:
    """One table of all reports: seconds and rate per item, and how often slower than the first arm."""
    grid = Table(title="Benchmarks (medians)", title_justify="left")
    for column in ("what", "arm"):
        grid.add_column(column)
    for column in ("ms per item", "CPU ms", "items/s", "spread", "times the first", "kept", "discarded"):
        grid.add_column(column, justify="right")
    for report in reports:
        ratios = report.ratios()
        for timing in report.timings:
            grid.add_row(
                f"{report.name} ({report.item})" if timing is report.timings[0] else "",
                timing.name,
                f"{timing.median_s * 1e3:.4g}{'' if timing.clean else ' disturbed'}",
                f"{timing.cpu_s_per_item * 1e3:.4g}",
                f"{1 / timing.median_s:,.4g}",
                "" if math.isnan(timing.spread) else f"{timing.spread:.0%}",
                f"{ratios[timing.name]:.3g}" if timing.name in ratios else "",
                str(len(timing.seconds_per_item)),
                str(timing.n_discarded),
            )
        grid.add_section()
    return grid


def show(reports: Sequence[Report]) -> None:
    """Prints the table, then every report's notes and facts."""
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table(reports))
    for report in reports:
        for note in report.notes:
            console.print(f"{report.name}: {note}", highlight=False)
        for name, value in report.facts.items():
            console.print(f"{report.name}: {name} = {value}", highlight=False)


def write_json(path: Path, reports: Sequence[Report]) -> None:
    """Everything the table shows and every sample, with the environment it was measured in."""
    content = {
        "environment": environment(),
        "reports": [
            asdict(report)
            | {"median_s": {t.name: t.median_s for t in report.timings}, "times_the_first": report.ratios()}
            for report in reports
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def reports_of(found: Report | Sequence[Report]) -> list[Report]:
    """What a benchmark's `run` gave: one report, or one for each of its cases."""
    return [found] if isinstance(found, Report) else list(found)


def publish(reports: Sequence[Report], json_file: Path | None) -> None:
    """Shows what was measured, and writes it where asked to.

    Raises:
        SystemExit: one was refused; only after all others were shown and written.
    """
    show(reports)
    if json_file:
        write_json(json_file, reports)
    if any(report.refused for report in reports):
        raise SystemExit(1)


def main(
    run: Callable[[bool], Report | Sequence[Report]], description: str | None, argv: Sequence[str] | None = None
) -> None:
    """Command line of one benchmark: `--quick` or `--full`, `--json FILE`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="a few short rounds: seconds instead of minutes")
    form.add_argument("--full", action="store_true", help="the whole size, in minutes (the default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write samples, facts and environment")
    arguments = parser.parse_args(argv)
    publish(reports_of(run(arguments.quick)), arguments.json)
