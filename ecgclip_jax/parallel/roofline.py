"""Least time that a device's peaks allow for what a compiled program does: a bound from below, never a time.

Compute, memory and interconnect could at best all overlap, so the largest of the three bounds the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecgclip_jax.parallel.hlo_collectives import Collective
from ecgclip_jax.parallel.hlo_cost import ProgramCost
from ecgclip_jax.parallel.targets import DeviceFacts


@dataclass(frozen=True)
class Roofline:
    """Seconds of one step, each at the device's peak."""

    compute_s: float
    memory_s: float
    interconnect_s: float

    @property
    def bound_s(self) -> float:
        """No step of this program takes less on this device."""
        return max(self.compute_s, self.memory_s, self.interconnect_s)

    @property
    def bound_by(self) -> str:
        """Which of the three it is."""
        named = {"compute": self.compute_s, "memory": self.memory_s, "interconnect": self.interconnect_s}
        return max(named, key=lambda name: named[name])


def roofline(cost: ProgramCost, device: DeviceFacts, host_of: Sequence[int]) -> Roofline:
    """The bounds of a program on devices of which the d-th sits in host `host_of[d]`."""
    peaks = {
        "bfloat16": device.bfloat16_flops,
        "float32": device.float32_flops,
        "float32_exact": device.float32_exact_flops,
    }
    return Roofline(
        compute_s=sum(flops / peaks[precision] for precision, flops in cost.flops.items()),
        memory_s=cost.n_bytes / device.memory_bandwidth,
        interconnect_s=sum(collective_s(c, device, host_of) for c in cost.collectives),
    )


def collective_s(collective: Collective, device: DeviceFacts, host_of: Sequence[int]) -> float:
    """Least seconds of all runs of a collective: over the links, or over the network where it leaves a host."""
    links = device.links if collective.kind == "collective-permute" else 1
    seconds = collective.sent_bytes * links / device.link_bandwidth
    if device.network_bandwidth is not None:
        seconds = max(seconds, collective.crossing_bytes(host_of) / device.network_bandwidth)
    return collective.runs * seconds
