"""Compiled programs as text (HLO) read into data: which instructions, of which shapes, in which computations.

Pure text: it reads what `jax.stages.Compiled.as_text()` gives for CPUs, GPUs and TPUs, and needs no device. What the
instructions cost is `parallel.hlo_cost`'s matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import no_type_check

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation|branch_computations)"
    r"=(?:\{([^}]*)\}|(%[\w.\-]+))"
)
_SHAPELESS = frozenset({"token", "opaque"})


@no_type_check
@dataclass(frozen=True)
class ArrayShape:
    """An array as a program holds it.

    This and `Instruction` are made and read by the ten thousand: tests do not check their fields at run time.
    """

    dtype: str
    """HLO's name: `bf16`, `f32`, `s16`, `pred` …"""
    dims: tuple[int, ...]
    layout: str
    """What stands between the braces: minor-to-major order, tiles, memory space."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def n_bytes(self) -> int:
        """Bytes in memory, padding to whole tiles included (TPUs: `{1,0:T(8,128)}` pads both axes)."""
        bits = bits_of(self.dtype)
        return (math.prod(self._padded_dims()) * bits + 7) // 8

    @property
    def memory_space(self) -> int:
        """0 is the device's main memory; on a TPU every other number is memory on the chip."""
        space = re.search(r"S\((\d+)\)", self.layout)
        return int(space.group(1)) if space else 0

    def _padded_dims(self) -> list[int]:
        order, _, tiling = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", tiling)
        major_to_minor = [self.dims[int(axis)] for axis in reversed(order.split(","))] if order else list(self.dims)
        if tile is None or not self.dims:
            return major_to_minor
        sizes = [int(size) for size in tile.group(1).split(",")][-len(self.dims) :]
        first = len(major_to_minor) - len(sizes)
        return major_to_minor[:first] + [
            -(-dim // size) * size for dim, size in zip(major_to_minor[first:], sizes, strict=True)
        ]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(dim) for dim in self.dims)}]"


@no_type_check
@dataclass(frozen=True)
class Instruction:
    """One line of a computation; the leaves of a tuple result stand in `shapes` in order."""

    name: str
    opcode: str
    shapes: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    literal: str
    """What stands between the parentheses: operands, or a parameter's number, or a constant's value."""
    attributes: str
    is_root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations it calls, in the order written (a `while`: condition and body)."""
        return tuple(
            name for braced, single in _CALLED.findall(self.attributes) for name in _NAME.findall(braced or single)
        )

    @property
    def op_name(self) -> str:
        """The operation of the traced program it came from (`jit(step)/transpose(jvp())/dot_general`), or ''."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found.group(1) if found else ""

    @property
    def target(self) -> str:
        """What a custom call calls, or ''."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @property
    def n_bytes(self) -> int:
        """Bytes of the result."""
        return sum(shape.n_bytes for shape in self.shapes)

    def attribute(self, name: str) -> str:
        """Text of `name=...` up to the next comma outside of braces, or ''."""
        found = re.search(rf"(?<![\w.]){name}=(\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|[^,\s]+)", self.attributes)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Computation:
    """A function of a program: its instructions in the order in which they are written (scheduled ones: run)."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's."""
        for instruction in reversed(self.instructions.values()):
            if instruction.is_root:
                return instruction
        return next(reversed(self.instructions.values()))

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction's result."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                if operand in users:
                    users[operand].append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {int(i.literal): i for i in self.instructions.values() if i.opcode == "parameter"}

    def shape_of(self, name: str) -> ArrayShape:
        """Shape of an operand that is one array."""
        return self.instructions[name].shapes[0]


@dataclass(frozen=True)
class Program:
    """A compiled module."""

    computations: dict[str, Computation]
    entry: Computation

    def called_by(self, instruction: Instruction) -> list[Computation]:
        """The computations an instruction calls."""
        return [self.computations[name] for name in instruction.called if name in self.computations]

    def within(self, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
        """Every instruction of the computations that a fusion (or call) consists of, however deep."""
        for computation in self.called_by(instruction):
            for inner in computation.instructions.values():
                yield computation, inner
                if inner.opcode in ("fusion", "call"):
                    yield from self.within(inner)


def bits_of(dtype: str) -> int:
    """Bits of an element of HLO's `dtype`; 0 for what has no memory (tokens)."""
    if dtype in _SHAPELESS:
        return 0
    if dtype == "pred":
        return 8
    digits = re.match(r"[a-z]+(\d+)", dtype)
    if digits is None:
        raise ValueError(f"HLO has an element type {dtype!r} that this reader does not know")
    return int(digits.group(1))


def parse_program(text: str) -> Program:
    """Reads the text of a compiled module.

    Raises:
        ValueError: text without an entry computation.
    """
    computations: dict[str, Computation] = {}
    entry: Computation | None = None
    current: Computation | None = None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = _NAME.search(line)
            current = Computation(name.group(1) if name else line.split(" ", 1)[0])
            computations[current.name] = current
            entry = current if line.startswith("ENTRY") else entry
        elif current is not None and " = " in line:
            instruction = _parse_instruction(_COMMENT.sub("", line).strip())
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return Program(computations, entry)


def parse_shapes(text: str) -> tuple[ArrayShape, ...]:
    """The arrays of a shape, tuples flattened: `(f32[2,3]{1,0}, s32[])` has two."""
    return tuple(
        ArrayShape(dtype, tuple(int(dim.lstrip("<=")) for dim in dims.split(",") if dim), layout)
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _parse_instruction(line: str) -> Instruction:
    left, right = line.split(" = ", 1)
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    literal = rest[opening + 1 : closing]
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=rest[:opening],
        shapes=parse_shapes(shape),
        operands=tuple(_NAME.findall(literal)),
        literal=literal,
        attributes=rest[closing + 1 :],
        is_root=left.startswith("ROOT "),
    )


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis at `opening` closes."""
    depth = 0
    for match in re.finditer(r"[()]", text[opening:]):
        depth += 1 if match.group() == "(" else -1
        if depth == 0:
            return opening + match.start()
    raise ValueError(f"unbalanced parentheses in HLO: {text[:200]}")
