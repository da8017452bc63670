"""Collectives of a compiled program: kind, bytes, which devices talk, and what must cross a link or a host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ecgclip_jax.parallel.hlo import Computation, Instruction

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


@dataclass(frozen=True)
class Collective:
    """One collective operation, and how often it runs in a step."""

    kind: str
    payload_bytes: int
    """Per device and run: what is reduced, or what is gathered, or what is sent on."""
    groups: tuple[tuple[int, ...], ...]
    """Devices that take part together; of a permutation the (from, to) pairs."""
    runs: int

    @property
    def group_size(self) -> int:
        """Devices that take part together (2 for a permutation: from, to)."""
        return max((len(group) for group in self.groups), default=1)

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends in one run at least (a ring's count: 2(n-1)/n of an all-reduce's payload)."""
        return self.payload_bytes * _ring_factor(self.kind, self.group_size)

    def crossing_bytes(self, host_of: Sequence[int]) -> float:
        """Bytes per device of one run that must leave its host at least; `host_of[d]` is device d's host.

        A hierarchical reduction or gather crosses with one copy per host, spread over the host's devices that take
        part. A permutation crosses with all that one device sends.
        """
        if not self.groups:
            return 0.0
        hosts, per_host = 1, 1
        for group in self.groups:
            places = [host_of[device] for device in group]
            if len(set(places)) > hosts:
                hosts, per_host = len(set(places)), len(group) // len(set(places))
        if hosts == 1:
            return 0.0
        spread = 1 if self.kind in ("collective-permute", "all-to-all") else max(per_host, 1)
        return self.payload_bytes * _ring_factor(self.kind, hosts) / spread


def _ring_factor(kind: str, n: int) -> float:
    if n < 2:
        return 0.0
    if kind in ("collective-permute", "collective-broadcast"):
        return 1.0
    return (2 if kind == "all-reduce" else 1) * (n - 1) / n


def collective_kind(opcode: str) -> str:
    """`all-reduce` for `all-reduce` and `all-reduce-start`; '' for what is none (or the end of one)."""
    base = opcode.removesuffix("-start")
    return base if base in _KINDS else ""


def read_collective(computation: Computation, instruction: Instruction, n_devices: int, runs: int) -> Collective:
    """A collective's facts from its line; `n_devices` take part where no groups are written."""
    kind = collective_kind(instruction.opcode)
    operand_bytes = sum(computation.instructions[name].n_bytes for name in instruction.operands)
    payload = operand_bytes
    if kind == "all-gather":
        operands = len(instruction.operands) if instruction.opcode.endswith("-start") else 0
        payload = sum(shape.n_bytes for shape in instruction.shapes[operands:])
    if kind == "collective-permute":
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attribute("source_target_pairs"))
        return Collective(kind, payload, tuple((int(a), int(b)) for a, b in pairs), runs)
    groups = replica_groups(instruction.attributes, n_devices)
    return Collective(kind, payload, tuple(tuple(int(d) for d in group) for group in groups), runs)


def replica_groups(attributes: str, n_devices: int) -> Int[np.ndarray, "group device"]:
    """Devices of each group, from any of the three ways in which programs write them.

    `{{0,1},{2,3}}`; `[2,2]<=[4]` or `[2,2]<=[2,2]T(1,0)` (an iota, reshaped and transposed);
    `mesh['x'=2,'y'=2] {'x'}` (the named axes of a mesh talk). Nothing written means one group of all.
    """
    written = re.search(r"replica_groups=\{(\{[\d,{}\s]*\})\}", attributes)
    if written:
        return np.asarray(
            [[int(d) for d in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", written.group())]
        )
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        shape, source, order = ([int(n) for n in part.split(",")] if part else None for part in iota.groups())
        devices = np.arange(np.prod(source or [1])).reshape(source or [1])
        return devices.transpose(order or range(devices.ndim)).reshape(shape or [1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes)
    if mesh:
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh.group(1))}
        talking = re.findall(r"'([^']+)'", mesh.group(2))
        devices = np.arange(n_devices).reshape(list(axes.values()))
        order = [i for i, a in enumerate(axes) if a not in talking] + [i for i, a in enumerate(axes) if a in talking]
        size = int(np.prod([axes[name] for name in talking]))
        return devices.transpose(order).reshape(-1, size)
    return np.arange(n_devices)[None]
