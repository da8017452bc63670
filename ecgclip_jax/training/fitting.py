"""What would help a step that does not fit into a device's memory, with the effect where it is simple to estimate.

The estimates split what is needed into what stays (state, gradients) and what grows with the ECGs that a device holds
at once. They say in which direction to go and about how far; compiling again tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecgclip_jax.training.program import CompiledStep


@dataclass(frozen=True)
class Remedy:
    """A setting that needs less memory."""

    setting: str
    """As it would be written on the command line."""
    effect: str


def remedies(step: CompiledStep) -> list[Remedy]:
    """Settings that would help, those that should suffice first; empty for a target without a memory limit."""
    limit = step.memory_limit
    if limit is None:
        return []
    memory, experiment = step.memory, step.experiment
    fixed = memory.fixed + memory.trained
    growing = max(memory.needed - fixed, 1)
    activations = max(growing - memory.batch, 1)
    found = [
        *_micro_batches(step, limit - fixed - memory.batch, activations),
        *_more_devices(step, limit - fixed, growing),
        *_smaller_batch(step, limit - fixed, growing),
    ]
    spared = (memory.parameters + memory.optimizer + memory.target) * (1 - 1 / step.mesh.size)
    if step.mesh.shape["fsdp"] == 1 and step.mesh.size > 1 and spared > limit / 100:
        found.append(
            Remedy(
                "--mesh fsdp=N (parameters and optimizer state split over N devices)",
                f"spares up to {gib(spared)} per device",
            )
        )
    if experiment.ecg_encoder.dtype == "float32":
        found.append(
            Remedy("--ecg-encoder.dtype bfloat16", f"about halves the {gib(activations)} of activations (ECG tower)")
        )
    if experiment.memory.ecg_remat == "none":
        found.append(
            Remedy("--memory.ecg-remat blocks", "keeps only the residual blocks' outputs: compile again to see")
        )
    if experiment.memory.text_remat == "none" and step.text_is_trained:
        found.append(Remedy("--memory.text-remat layers", "keeps only the layers' outputs: compile again to see"))
    return found


def gib(n_bytes: int | float) -> str:
    """`1.50 GiB`, small amounts in MiB or KiB."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(n_bytes) >= unit:
            return f"{n_bytes / unit:,.2f} {name}"
    return f"{n_bytes:,.0f} B"


def _micro_batches(step: CompiledStep, free: int, activations: int) -> list[Remedy]:
    now = step.experiment.memory.micro_batches
    if free <= 0:
        return []
    parts = now
    while parts <= step.batch_local and activations * now / parts > free:
        parts *= 2
    if parts == now or step.experiment.data.batch_global % (parts * step.mesh.size):
        return []
    groups = step.experiment.ecg_encoder.norm_groups
    norm = f" --ecg-encoder.norm-groups {parts}" if groups % parts else ""
    return [
        Remedy(
            f"--memory.micro-batches {parts}{norm}",
            f"the same loss over the whole batch; activations of {gib(activations)} become about "
            f"{gib(activations * now / parts)}, for one more forward pass"
            + ("; BatchNorm then uses the statistics of each micro-batch" if norm else ""),
        )
    ]


def _more_devices(step: CompiledStep, free: int, growing: int) -> list[Remedy]:
    devices, batch = step.mesh.size, step.experiment.data.batch_global
    if free <= 0:
        return []
    more = devices
    while more <= batch and growing * devices / more > free:
        more *= 2
    if more == devices or batch % more:
        return []
    return [
        Remedy(
            f"{more} devices instead of {devices}", f"{batch // more:,} ECGs on each instead of {batch // devices:,}"
        )
    ]


def _smaller_batch(step: CompiledStep, free: int, growing: int) -> list[Remedy]:
    local = step.batch_local
    while local > 1 and growing * local / step.batch_local > free:
        local //= 2
    if free <= 0 or local == step.batch_local:
        return []
    return [
        Remedy(
            f"--data.batch-global {local * step.mesh.size}", f"{local:,} ECGs per device; another loss: fewer negatives"
        )
    ]
