"""A compiled training step as tables on the console, and as a dictionary for JSON."""

from __future__ import annotations

from collections import defaultdict
from importlib import metadata
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecgclip_jax.parallel.roofline import collective_s
from ecgclip_jax.parallel.targets import extra_of
from ecgclip_jax.training.fitting import gib, remedies
from ecgclip_jax.training.program import CompiledStep

_COMPILERS = ("libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin")
_PRECISION = {
    "bfloat16": "16-bit products",
    "float32": "float32 products, default precision",
    "float32_exact": "float32 products, highest precision",
}


def print_step(step: CompiledStep, vocab_size: int, console: Console) -> None:
    """Everything about a compiled step, per device."""
    _print_head(step, vocab_size, console)
    console.print(memory_table(step))
    _print_fit(step, console)
    if step.cost is None:
        return
    console.print(_kernel_table(step))
    console.print(_collective_table(step))
    console.print(array_table(step))
    _print_bound(step, console)


def step_facts(step: CompiledStep, vocab_size: int) -> dict[str, Any]:
    """All figures, bytes and seconds without units, in JSON's types."""
    memory, cost, bound = step.memory, step.cost, step.roofline
    return {
        "experiment": step.experiment.name,
        "fingerprint": step.experiment.fingerprint(),
        "target": step.described.target.text,
        "compiler": step.described.compiler,
        "stand_in": step.described.stand_in,
        "compiler_options": step.options,
        "versions": _versions(),
        "mesh": dict(step.mesh.shape),
        "batch_global": step.experiment.data.batch_global,
        "batch_per_device": step.batch_local,
        "micro_batches": step.experiment.memory.micro_batches,
        "vocab_size": vocab_size,
        "compile_s": round(step.seconds, 1),
        "memory": vars(memory) | {"limit": step.memory_limit, "fits": step.fits},
        "remedies": [vars(remedy) for remedy in remedies(step)] if step.fits is False else [],
        "flops": dict(cost.flops) if cost else None,
        "bytes": {kind: vars(total) for kind, total in cost.kernels.items()} if cost else None,
        "bytes_per_ecg": cost.n_bytes / step.batch_local if cost else None,
        "unknown_loops": cost.unknown_loops if cost else None,
        "compiler_flops": step.compiler_flops,
        "compiler_bytes": step.compiler_bytes,
        "collectives": _collectives(step),
        "roofline": None if bound is None else vars(bound) | {"bound_s": bound.bound_s, "bound_by": bound.bound_by},
        "ecg_per_s_bound": None if bound is None else step.experiment.data.batch_global / bound.bound_s,
        "largest_arrays": [
            {"array": str(shape), "bytes": shape.n_bytes, "count": count, "operation": name}
            for shape, count, name in step.largest
        ],
    }


def _versions() -> dict[str, str]:
    found = {"jax": jax.__version__}
    for name in _COMPILERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _print_head(step: CompiledStep, vocab_size: int, console: Console) -> None:
    experiment, target = step.experiment, step.described.target
    facts = target.facts
    mesh = " x ".join(f"{axis} {size}" for axis, size in step.mesh.shape.items())
    micro = experiment.memory.micro_batches
    parts = f" in {micro} micro-batches" if micro > 1 else ""
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    console.print(f"[bold]{escape(experiment.name)}[/] for [bold]{target.text}[/]: {target.n_devices} x ", end="")
    console.print(f"{facts.title if facts else 'CPU device'}, mesh {mesh}", highlight=False)
    console.print(
        f"global batch {experiment.data.batch_global:,}, {step.batch_local:,} ECGs per device{parts}; "
        f"compiled by {step.described.compiler} in {step.seconds:.0f} s ({versions})",
        highlight=False,
    )
    if step.options:
        told = ", ".join(f"{name}={value}" for name, value in step.options.items())
        console.print(f"with compiler options {told}, as a run has them", highlight=False)
    if experiment.text_encoder is not None and experiment.text_encoder.weights is not None:
        console.print(
            f"text tower: the experiment's own sizes, {vocab_size:,} tokens; the weights of "
            f"{escape(experiment.text_encoder.weights)} are not read",
            highlight=False,
        )
    if step.described.stand_in:
        console.print(
            f"[yellow]The compiler for {target.name} is not installed here, so {target.n_devices} CPU devices stand in:"
            "[/] state, batch and collectives hold; temporary memory and kernels are the CPU's (bfloat16 computed in "
            f"float32), and no bound is drawn. For the real compiler: pip install -e '.\\[{extra_of(target)}]'",
            highlight=False,
        )


def memory_table(step: CompiledStep) -> Table:
    """Bytes on one device while the step runs, by what they hold."""
    memory = step.memory
    table = Table("memory per device", "bytes", title="Memory", title_justify="left")
    table.columns[1].justify = "right"
    rows: list[tuple[str, int | None]] = [
        ("parameters", memory.parameters),
        ("optimizer state", memory.optimizer),
        ("target branch (momentum encoder)", memory.target),
        ("running statistics", memory.statistics),
        ("filters of the input", memory.filters),
        ("batch", memory.batch),
        ("activations, gradients, temporary", memory.temporary),
        ("  of these kept for the backward pass, about", memory.kept_for_backward),
        ("results that need their own place", memory.outputs),
        ("program", memory.program),
    ]
    for name, n_bytes in rows:
        if n_bytes or name == "batch" or name.startswith("activations"):
            table.add_row(name, "unknown" if n_bytes is None else gib(n_bytes))
    table.add_section()
    table.add_row("needed, as laid out", gib(memory.needed))
    if step.memory_limit is not None:
        table.add_row("a device has", gib(step.memory_limit))
    return table


def _print_fit(step: CompiledStep, console: Console) -> None:
    limit = step.memory_limit
    if limit is None or step.fits is None:
        return
    room = limit - step.memory.needed
    if step.fits:
        console.print(f"[green]fits[/], {gib(room)} to spare ({step.memory.needed / limit:.0%} used)", highlight=False)
        facts = step.described.target.facts
        if facts is not None and facts.family == "gpu" and step.memory.needed > 0.75 * limit:
            console.print("more than jax's default share: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95", highlight=False)
        return
    console.print(f"[red]does not fit[/]: {gib(-room)} too much per device. What would help (estimates):")
    table = Table("setting", "effect")
    for remedy in remedies(step):
        table.add_row(escape(remedy.setting), escape(remedy.effect))
    console.print(table)


def _kernel_table(step: CompiledStep) -> Table:
    assert step.cost is not None
    table = Table(
        "kind of kernel", "runs", "bytes", "per ECG", "share", title="Bytes moved per device and step",
        title_justify="left",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    whole = step.cost.n_bytes
    for kind, total in sorted(step.cost.kernels.items(), key=lambda item: -item[1].n_bytes):
        per_ecg = f"{total.n_bytes / step.batch_local / 1e6:,.2f} MB"
        table.add_row(kind, f"{total.runs:,}", gib(total.n_bytes), per_ecg, f"{total.n_bytes / max(whole, 1):.0%}")
    table.add_section()
    table.add_row("all", "", gib(whole), f"{whole / step.batch_local / 1e6:,.2f} MB", "")
    if step.compiler_bytes:
        per_ecg = f"{step.compiler_bytes / step.batch_local / 1e6:,.2f} MB"
        table.add_row("the compiler's own count", "", gib(step.compiler_bytes), per_ecg, "")
    return table


def _collectives(step: CompiledStep) -> list[dict[str, Any]]:
    if step.cost is None:
        return []
    host_of = [device.process_index for device in step.mesh.devices.flat]
    grouped: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    facts = None if step.described.stand_in else step.described.target.facts
    for c in step.cost.collectives:
        n_devices = step.mesh.size if c.kind == "collective-permute" else c.group_size
        sums = grouped[c.kind, n_devices]
        sums[0] += c.runs
        sums[1] += c.runs * c.payload_bytes
        sums[2] += c.runs * c.sent_bytes
        sums[3] += collective_s(c, facts, host_of) if facts else 0.0
    return [
        {"kind": kind, "devices": size, "runs": int(runs), "payload_bytes": int(payload), "sent_bytes": int(sent),
         "bound_s": seconds if facts else None}
        for (kind, size), (runs, payload, sent, seconds) in sorted(grouped.items(), key=lambda item: -item[1][2])
    ]  # fmt: skip


def _collective_table(step: CompiledStep) -> Table | str:
    rows = _collectives(step)
    if not rows:
        return "no collectives: one device"
    table = Table(
        "collective", "devices", "runs", "payload", "sent", "at least", title="Collectives per device and step",
        title_justify="left",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        seconds = "" if row["bound_s"] is None else f"{row['bound_s'] * 1e3:,.2f} ms"
        table.add_row(
            row["kind"], f"{row['devices']:,}", f"{row['runs']:,}", gib(row["payload_bytes"]), gib(row["sent_bytes"]),
            seconds,
        )  # fmt: skip
    return table


def array_table(step: CompiledStep) -> Table:
    """The largest arrays that kernels of the step write."""
    table = Table("array", "bytes", "how many", "first made by", title="Largest arrays written", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for shape, count, name in step.largest:
        table.add_row(str(shape), gib(shape.n_bytes), f"{count:,}", escape(name.removeprefix("jit(_train_step)/")[:60]))
    return table


def _print_bound(step: CompiledStep, console: Console) -> None:
    assert step.cost is not None
    flops = step.cost.flops
    total = sum(flops.values())
    console.print(
        f"{_flop(total)} in products per device and step, {_flop(total / step.batch_local)} per ECG: "
        + ", ".join(f"{_PRECISION[name]} {_flop(count)}" for name, count in flops.items())
        + (f"; the compiler's own count {_flop(step.compiler_flops)}" if step.compiler_flops else ""),
        highlight=False,
    )
    if step.cost.unknown_loops:
        console.print(
            f"[yellow]{step.cost.unknown_loops} loops have no known number of rounds: their bodies count once[/]"
        )
    bound = step.roofline
    if bound is None:
        return
    console.print(
        f"at the vendor's peaks a step takes at least: compute {bound.compute_s * 1e3:,.1f} ms, memory "
        f"{bound.memory_s * 1e3:,.1f} ms, interconnect {bound.interconnect_s * 1e3:,.1f} ms\n"
        f"[bold]bound by {bound.bound_by}: at most {step.experiment.data.batch_global / bound.bound_s:,.0f} ECG/s on "
        f"{step.mesh.size} devices[/] ({step.batch_local / bound.bound_s:,.0f} each). A bound, no time: nothing ran.",
        highlight=False,
    )


def _flop(count: int | float) -> str:
    for unit, name in ((1e12, "TFLOP"), (1e9, "GFLOP")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count / 1e6:,.2f} MFLOP"
