"""`ecgclip profile FILE`: a few real training steps, timed and traced, as a plain table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

from ecgclip_jax.cli.generated import prepare_generated
from ecgclip_jax.cli.options import default_data_dir, parse_with_overrides, table_console
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.files import load_experiment

if TYPE_CHECKING:
    from ecgclip_jax.training.profiling import StepProfile


@dataclass
class ProfileArguments:
    """Run a few training steps of an experiment on this machine's devices, and see where their time goes.

    The steps are the real ones: prepared cohorts, loader, text cache, the compiled step. They are timed without the
    profiler, then traced. Printed are throughput, the share of the time in which the devices waited for input, the
    fraction of what the devices' peaks would allow (where their kind's peaks are known), time by part of the step and
    kind of kernel, and the largest buffers. Nothing is trained: no checkpoint is written.

    Times of kernels come from the devices; on CPU devices they are spans in the host's threads, which may overlap and
    so add up to more than a step. Where a platform gives none the table says so.

    The folder then holds trace/ (for TensorBoard, XProf or ui.perfetto.dev), program.hlo (the compiled step, whose
    names the trace uses), profile.json, and run/ (index, tokenizer, text cache: made once, found again).

    Dotted overrides of the experiment may follow, for example `--data.batch-global 512 --data.input resident`.

    The demo's step:   ecgclip profile experiments/demo.py

    MERL's, on one GPU:   ecgclip profile experiments/merl.py --data.batch-global 512 --ecg-encoder.norm-groups 1
    """

    file: tyro.conf.Positional[Path]
    """Experiment file, for example experiments/demo.py."""
    variant: str | None = None
    """A variant of the file; without it the first one."""
    steps: int = 10
    """Steps that are timed, and as many that are traced after them."""
    folder: Path | None = None
    """Where trace and figures go; without it profiles/<name of the experiment>-<its fingerprint>."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data); synthetic ones are made where they are missing."""


def main(words: list[str]) -> int:
    """Runs, traces, prints the tables and says where the trace lies."""
    arguments, overrides = parse_with_overrides(ProfileArguments, words, "profile")
    experiment = load_experiment(arguments.file, arguments.variant, overrides)
    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: at least one step must run")
    folder = arguments.folder or Path("profiles") / f"{experiment.name}-{experiment.fingerprint()[:8]}"
    console = table_console()
    prepare_generated((source.cohort for source in experiment.data.sources), arguments.data_dir, console)
    from ecgclip_jax.cli.program_tables import array_table, memory_table
    from ecgclip_jax.training.profiling import TRACE_FOLDER, profile

    found = profile(experiment, folder, arguments.data_dir, arguments.steps)
    print_head(found, console)
    console.print(time_table(found) if found.kinds else NO_TIMES)
    console.print(array_table(found.step))
    console.print(memory_table(found.step))
    (folder / "profile.json").write_text(json.dumps(profile_facts(found), indent=1) + "\n", encoding="utf-8")
    console.print(
        f"trace: {folder / TRACE_FOLDER} (tensorboard --logdir, or the .xplane.pb in XProf); figures: "
        f"{folder / 'profile.json'}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


NO_TIMES = (
    "time by layer kind: not known, because this platform's trace names no instructions of the program (its profiler "
    "is not installed, or may not read the device's counters); throughput and buffers above and below hold"
)


def print_head(found: StepProfile, console: Console) -> None:
    """Throughput, wait for input and roofline, in lines."""
    step = found.step
    kind, batch = step.mesh.devices.flat[0].device_kind, step.experiment.data.batch_global
    console.print(f"[bold]{step.experiment.name}[/] on {step.mesh.size} x {kind}, global batch {batch:,}; ", end="")
    console.print(f"compiled in {step.seconds:.0f} s, {found.steps} steps timed, as many traced", highlight=False)
    console.print(
        f"[bold]{found.step_s * 1e3:,.1f} ms per step, {found.ecg_per_s:,.0f} ECG/s[/] "
        f"({found.traced_step_s * 1e3:,.1f} ms under the profiler)\n"
        f"input-bound share: at most {found.input_share:.1%} of the time the devices waited for a batch",
        highlight=False,
    )
    share, bound = found.roofline_share, step.roofline
    if share is None or bound is None:
        console.print(
            f"roofline fraction: none, the peaks of a {kind} are no known facts; bytes moved are counted all the same",
            highlight=False,
        )
        return
    console.print(
        f"roofline fraction: {share:.0%} (bound by {bound.bound_by}: {bound.bound_s * 1e3:,.1f} ms at the vendor's "
        f"peaks; compute {bound.compute_s * 1e3:,.1f}, memory {bound.memory_s * 1e3:,.1f} ms)",
        highlight=False,
    )


def time_table(found: StepProfile) -> Table:
    """Kernels by part of the step and kind: time per step and device, and the bytes per second that it means."""
    table = Table(
        "part", "kind of kernel", "runs", "forward ms", "backward ms", "ms", "share", "MB per ECG", "GB/s",
        title="Time by layer kind, per step and device", title_justify="left",
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    facts, whole, ecgs = found.step.described.target.facts, found.kernel_s, found.step.batch_local
    if facts is not None:
        table.add_column("of peak", justify="right")
    for kind in found.kinds:
        per_s = kind.n_bytes / max(kind.seconds, 1e-12)
        numbers = [kind.forward_s * 1e3, kind.backward_s * 1e3, kind.seconds * 1e3]
        cells = [f"{kind.runs:,.0f}", *(f"{number:,.2f}" for number in numbers), f"{kind.seconds / whole:.1%}"]
        cells += [f"{kind.n_bytes / ecgs / 1e6:,.2f}", f"{per_s / 1e9:,.1f}"]
        table.add_row(kind.part, kind.kind, *cells, *([f"{per_s / facts.memory_bandwidth:.0%}"] if facts else []))
    table.add_section()
    table.add_row("all kernels", "", "", "", "", f"{whole * 1e3:,.2f}", "100.0%")
    table.add_row("the traced step", "", "", "", "", f"{found.traced_step_s * 1e3:,.2f}", "")
    table.caption, table.caption_justify = _caption(found), "left"
    return table


def _caption(found: StepProfile) -> str | None:
    if not found.of_devices:
        return "spans in the host's threads: kernels that ran beside each other count each in full"
    if found.kernel_s < 0.8 * found.traced_step_s:
        return (
            "named kernels fill less than 0.8 of the step: the device waited (see the input-bound share), or ran them "
            "out of graphs without names (on a GPU XLA_FLAGS=--xla_gpu_enable_command_buffer= names all)"
        )
    return None


def profile_facts(found: StepProfile) -> dict[str, Any]:
    """All figures in JSON's types: seconds and bytes, `step` as `ecgclip compile --json` has it."""
    from ecgclip_jax.cli.program_tables import step_facts

    facts = step_facts(found.step, found.vocab_size)
    names = ("steps", "step_s", "traced_step_s", "input_share", "ecg_per_s", "roofline_share", "kernel_s", "of_devices")
    return {name: getattr(found, name) for name in names} | {
        "kinds": [asdict(kind) for kind in found.kinds],
        "step": facts,
    }
