"""What a compiled program does on one device, counted from its text: bytes by kind of kernel, FLOPs, collectives.

A kernel (an instruction that the device runs: a fusion, a convolution, a copy …) reads its operands from memory and
writes its result; their sizes are the bytes it moves. Three refinements keep the sum honest: of an array that a
kernel only slices, the slices count; an update in place costs what it updates; on a TPU, what lies in memory on the
chip costs nothing. A loop's body counts as often as it runs, where the compiler knows how often.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from ecgclip_jax.parallel.hlo import ArrayShape, Computation, Instruction, Program
from ecgclip_jax.parallel.hlo_collectives import Collective, collective_kind, read_collective
from ecgclip_jax.parallel.hlo_flops import (
    Precision,
    is_library_convolution,
    is_library_product,
    precision,
    product_flops,
)

_FREE = frozenset(
    {
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "opt-barrier", "domain", "iota", "add-dependency",
    }
)  # fmt: skip
_NAMELESS_AT_MOST = 4
"""So many kernels in a row may be without a name before what reads the last of them is asked for its own."""
_CONTROL = frozenset({"while", "conditional", "call"})
_FREE_TARGETS = frozenset({"ConcatBitcast", "AllocateBuffer", "AsyncCollectiveStart", "AsyncCollectiveDone"})
_SLICING = frozenset({"slice", "dynamic-slice", "gather"})
_ALIASING = frozenset({"bitcast", "get-tuple-element", "copy-start", "copy-done", "opt-barrier"})

KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("sort", frozenset({"sort", "topk"})),
    ("reduction", frozenset({"reduce", "reduce-window", "select-and-scatter"})),
    ("gather, scatter, update", frozenset({"gather", "scatter", "dynamic-update-slice", "dynamic-slice"})),
)
_COPIES = frozenset(
    {
        "copy", "transpose", "reshape", "bitcast", "slice", "concatenate", "pad", "reverse", "convert", "broadcast",
        "constant", "parameter", "tuple", "copy-start", "slice-start",
    }
)  # fmt: skip


@dataclass
class KernelTotal:
    """All kernels of one kind: how many run in a step, and the bytes they move."""

    runs: int = 0
    n_bytes: int = 0


@dataclass
class ProgramCost:
    """What one device does in one run of a program."""

    kernels: dict[str, KernelTotal] = field(default_factory=dict)
    flops: Counter[Precision] = field(default_factory=Counter)
    collectives: list[Collective] = field(default_factory=list)
    unknown_loops: int = 0
    """Loops whose number of rounds the compiler does not know: their bodies count once."""

    @property
    def n_bytes(self) -> int:
        """Bytes that all kernels move."""
        return sum(total.n_bytes for total in self.kernels.values())

    def add_kernel(self, kind: str, runs: int, n_bytes: int) -> None:
        """Counts `runs` kernels that move `n_bytes` each."""
        total = self.kernels.setdefault(kind, KernelTotal())
        total.runs += runs
        total.n_bytes += runs * n_bytes

    def add(self, other: ProgramCost) -> None:
        """Counts everything of another part of the program."""
        for kind, total in other.kernels.items():
            mine = self.kernels.setdefault(kind, KernelTotal())
            mine.runs += total.runs
            mine.n_bytes += total.n_bytes
        self.flops.update(other.flops)
        self.collectives.extend(other.collectives)
        self.unknown_loops += other.unknown_loops


class Kernel(NamedTuple):
    """One thing that a device runs: its name in the program, its kind, the bytes of one run, and whence it came."""

    name: str
    kind: str
    n_bytes: int
    op_name: str
    """Name of the traced operation; of a kernel without one that of what is next to it; '' where that has none."""


def kernels(program: Program, *, on_chip_spaces: bool = False) -> dict[str, Kernel]:
    """Every kernel of the entry computation and of the loop bodies, branches and calls in it, by its name."""
    counting, found = _Counting(program, 1, on_chip_spaces), {}
    for computation in _running(program):
        for name, instruction in computation.instructions.items():
            if instruction.opcode in _FREE or instruction.opcode in _CONTROL or instruction.target in _FREE_TARGETS:
                continue
            kind, n_bytes = kernel_kind(program, instruction), counting.bytes_moved(computation, instruction)
            found[name] = Kernel(name, kind, n_bytes, _whence(program, computation, instruction))
    return found


def _whence(program: Program, computation: Computation, instruction: Instruction) -> str:
    """Compilers leave some of what they rewrite without a name: then that of the nearest operand, or of a reader.

    What reads anything of the backward pass belongs to it: a weight gradient reads activations of the forward pass too.
    """
    level = [instruction]
    for _ in range(_NAMELESS_AT_MOST):
        found = [name for member in level if (name := _own_name(program, member))]
        if found:
            return min(found, key=lambda name: "transpose(" not in name)
        operands = dict.fromkeys(name for member in level for name in member.operands)
        level = [computation.instructions[name] for name in operands if name in computation.instructions]
    readers = (_own_name(program, reader) for reader in _readers(computation, instruction))
    return next((name for name in readers if name), "")


def _own_name(program: Program, instruction: Instruction) -> str:
    """Of the traced operation that a kernel, or the last named part of a fusion, came from; '' where none is noted."""
    inside = [inner for _, inner in program.within(instruction)] if instruction.opcode == "fusion" else []
    names = (part.op_name for part in (instruction, *reversed(inside)))
    return next((name for name in names if name.startswith("jit(")), "")


def program_cost(program: Program, *, n_devices: int, on_chip_spaces: bool = False) -> ProgramCost:
    """Counts a program that runs on `n_devices`; `on_chip_spaces` for TPUs, whose texts name memory spaces."""
    return _Counting(program, n_devices, on_chip_spaces).cost_of(program.entry, 1)


class _Counting:
    def __init__(self, program: Program, n_devices: int, on_chip_spaces: bool) -> None:
        self.program, self.n_devices, self.on_chip_spaces = program, n_devices, on_chip_spaces

    def cost_of(self, computation: Computation, times: int) -> ProgramCost:
        cost = ProgramCost()
        for instruction in computation.instructions.values():
            self._count(cost, computation, instruction, times)
        return cost

    def _count(self, cost: ProgramCost, computation: Computation, instruction: Instruction, times: int) -> None:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")) or instruction.target in _FREE_TARGETS:
            return
        if opcode == "while":
            rounds = trip_count(instruction)
            cost.unknown_loops += rounds is None
            body = self.program.computations[instruction.attribute("body").lstrip("%")]
            cost.add(self.cost_of(body, times * (rounds or 1)))
        elif opcode == "conditional":
            branches = [self.cost_of(branch, times) for branch in self.program.called_by(instruction)]
            cost.add(max(branches, key=lambda branch: branch.n_bytes))
        elif opcode in ("call", "async-start"):
            for called in self.program.called_by(instruction):
                cost.add(self.cost_of(called, times))
        else:
            self._count_kernel(cost, computation, instruction, times)

    def _count_kernel(self, cost: ProgramCost, computation: Computation, instruction: Instruction, times: int) -> None:
        kind = kernel_kind(self.program, instruction)
        if collective_kind(instruction.opcode):
            cost.collectives.append(read_collective(computation, instruction, self.n_devices, times))
        cost.add_kernel(kind, times, self.bytes_moved(computation, instruction))
        inner = self.program.within(instruction) if instruction.opcode == "fusion" else [(computation, instruction)]
        for owner, product in inner:
            flops = product_flops(owner, product)
            if flops:
                cost.flops[precision(owner, product)] += times * flops
            if owner is not computation and collective_kind(product.opcode) and not _continues(owner):
                cost.collectives.append(read_collective(owner, product, self.n_devices, times))

    def bytes_moved(self, computation: Computation, instruction: Instruction) -> int:
        """By one run of a kernel."""
        operands = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
        if instruction.opcode in ("copy-start", "slice-start"):
            # (destination, source, …) or ((source), destination, …): what arrives is what is read.
            arrives = instruction.shapes[0 if instruction.opcode == "copy-start" else len(operands)]
            source = operands[0].shapes[0]
            moved = ArrayShape(arrives.dtype, arrives.dims, source.layout)
            return self._size([arrives]) + self._size([moved])
        if instruction.opcode == "fusion":
            (fused,) = self.program.called_by(instruction)
            reads = sum(self._read(fused, number, operand) for number, operand in enumerate(operands))
            return reads + self._written(fused, instruction)
        if instruction.opcode == "dynamic-update-slice":
            return 2 * self._size(operands[1].shapes)
        if instruction.opcode in _SLICING:
            return 2 * self._size(instruction.shapes)
        results = instruction.shapes
        if instruction.opcode.endswith("-start"):  # a collective's tuple repeats its operands in front of its results
            results = results[len(operands) :] or results
        return self._size([shape for operand in operands for shape in operand.shapes]) + self._size(results)

    def _read(self, fused: Computation, number: int, operand: Instruction) -> int:
        """Bytes that a fusion reads of its operand `number`."""
        parameter = fused.parameters.get(number)
        if parameter is None:
            return self._size(operand.shapes)
        readers = _readers(fused, parameter)
        if all(reader.opcode in _SLICING or _passes_through(fused, reader, parameter) for reader in readers):
            if not self._size(parameter.shapes):
                return 0
            return sum(_main_memory(reader.shapes) for reader in readers if reader.opcode in _SLICING)
        return self._size(operand.shapes)

    def _written(self, fused: Computation, instruction: Instruction) -> int:
        """Bytes that a fusion writes: updates in place count as what they update, what passes through as nothing."""
        root = _origin(fused, fused.root)
        values = [fused.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
        if len(values) != len(instruction.shapes):
            return self._size(instruction.shapes)
        written = 0
        for value, shape in zip(values, instruction.shapes, strict=True):
            origin = _origin(fused, value)
            if origin.opcode == "parameter" or collective_kind(origin.opcode):
                continue
            if origin.opcode == "dynamic-update-slice":
                shape = fused.shape_of(origin.operands[1])
            written += self._size([shape])
        return written

    def _size(self, shapes: Sequence[ArrayShape]) -> int:
        if not self.on_chip_spaces:
            return _main_memory(shapes)
        return _main_memory([shape for shape in shapes if shape.memory_space == 0])


def _main_memory(shapes: Sequence[ArrayShape]) -> int:
    return sum(shape.n_bytes for shape in shapes)


def kernel_kind(program: Program, instruction: Instruction) -> str:
    """The kind under which a kernel's bytes are listed, by the heaviest thing that it does."""
    parts = [instruction]
    if instruction.opcode == "fusion":
        parts = [inner for _, inner in program.within(instruction)]
    if collective_kind(instruction.opcode):
        return "collective"
    if any(_is_convolution(part) for part in parts):
        return "convolution"
    if any(part.opcode in ("dot", "convolution") or is_library_product(part) for part in parts):
        return "matrix product"
    opcodes = {part.opcode for part in parts}
    for kind, members in KINDS:
        if opcodes & members:
            return kind
    if opcodes <= _COPIES:
        return "copy, transpose, convert"
    return "other call" if instruction.opcode == "custom-call" else "elementwise"


def _is_convolution(instruction: Instruction) -> bool:
    """TPUs and cuDNN write matrix products as convolutions too; the traced operation's name tells them apart."""
    if is_library_convolution(instruction):
        return "dot_general" not in instruction.op_name
    if instruction.opcode != "convolution":
        return False
    name = instruction.op_name
    return "conv_general_dilated" in name or ("dot_general" not in name and "size=" in instruction.attribute("window"))


def trip_count(loop: Instruction) -> int | None:
    """Rounds of a `while`, where the compiler has noted them."""
    noted = re.search(r'known_trip_count[":{\s]+n[":\s]+(\d+)', loop.attributes)
    return int(noted.group(1)) if noted else None


def kept_for_backward(program: Program) -> int:
    """Most bytes of arrays alive at once that the forward pass writes and the backward pass reads.

    An estimate: which pass a kernel belongs to is told by the name of its last operation. The order of instructions is
    that in which they run. Counted per computation (a loop's body has its own), the largest counts.
    """
    return max(_kept_in(computation) for computation in program.computations.values())


def _kept_in(computation: Computation) -> int:
    place = {name: number for number, name in enumerate(computation.instructions)}
    change = [0] * (len(place) + 1)
    for name, value in computation.instructions.items():
        source = _origin(computation, value)
        if value.opcode == "bitcast" or len(value.shapes) != 1 or not _is_forward(source):
            continue
        readers = _readers(computation, value)
        if any("transpose(" in reader.op_name for reader in readers):
            change[place[name]] += value.n_bytes
            change[max(place[reader.name] for reader in readers) + 1] -= value.n_bytes
    return max(accumulate(change))


def _is_forward(instruction: Instruction) -> bool:
    return "jvp(" in instruction.op_name and "transpose(" not in instruction.op_name


def _continues(computation: Computation) -> bool:
    """Whether a fused computation only carries on a collective that another one started (TPU)."""
    targets = {instruction.target for instruction in computation.instructions.values()}
    asynchronous = "async_collective" in computation.name or "AsyncCollectiveDone" in targets
    return asynchronous and "AsyncCollectiveStart" not in targets


def _readers(computation: Computation, value: Instruction) -> list[Instruction]:
    """Who reads a value, bitcasts looked through."""
    readers = []
    for user in computation.users[value.name]:
        readers.extend(_readers(computation, user) if user.opcode == "bitcast" else [user])
    return readers


def _passes_through(computation: Computation, reader: Instruction, parameter: Instruction) -> bool:
    """Whether a reader moves nothing of it: the root's tuple, a collective, an update of a part of it in place."""
    if reader.opcode == "dynamic-update-slice":
        return _origin(computation, computation.instructions[reader.operands[0]]) is parameter
    return reader.opcode == "tuple" or bool(collective_kind(reader.opcode)) or reader.target in _FREE_TARGETS


def _origin(computation: Computation, value: Instruction) -> Instruction:
    """The instruction that made a value, through what only renames or moves it."""
    while value.opcode in _ALIASING and value.operands and value.operands[0] in computation.instructions:
        value = computation.instructions[value.operands[0]]
    return value


def largest_arrays(program: Program, number: int) -> list[tuple[ArrayShape, int, str]]:
    """The largest kinds of array that kernels write: shape, how many of it, and the operation of the first."""
    found: dict[str, tuple[ArrayShape, int, str]] = {}
    for computation in _running(program):
        for instruction in computation.instructions.values():
            if instruction.opcode in _FREE or instruction.opcode.endswith("-done") or instruction.opcode == "while":
                continue
            for shape in instruction.shapes:
                _, count, name = found.get(str(shape), (shape, 0, instruction.op_name))
                found[str(shape)] = (shape, count + 1, name)
    return sorted(found.values(), key=lambda entry: -entry[0].n_bytes)[:number]


def _running(program: Program) -> list[Computation]:
    """The entry computation and the loop bodies, branches and calls in it: what runs instruction by instruction."""
    running, open_ones = [], [program.entry]
    while open_ones:
        computation = open_ones.pop()
        running.append(computation)
        for instruction in computation.instructions.values():
            if instruction.opcode in _CONTROL:
                open_ones.extend(program.called_by(instruction))
    return running
