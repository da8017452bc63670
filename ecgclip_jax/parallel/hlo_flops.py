"""Floating point operations of a compiled program's matrix products and convolutions, from their shapes.

One multiply and add are two operations. Elementwise work is not counted: it is bound by memory, which `hlo_cost`
counts. The compilers' own counts (where they give any) stand beside these: they count a loop's body once.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Literal

import numpy as np

from ecgclip_jax.parallel.hlo import Computation, Instruction

Precision = Literal["bfloat16", "float32", "float32_exact"]
"""How a product is computed: 16-bit operands, float32 at the compiler's default, float32 at highest precision."""

_CUDNN = {"__cudnn$convForward": "forward", "__cudnn$convBiasActivationForward": "forward",
          "__cudnn$convBackwardInput": "input", "__cudnn$convBackwardFilter": "filter"}  # fmt: skip


def product_flops(computation: Computation, instruction: Instruction) -> int:
    """FLOPs of one dot, convolution, or call of a library for either; 0 for every other instruction."""
    if instruction.opcode == "dot":
        return _dot(computation, instruction)
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    if instruction.opcode == "custom-call" and instruction.target in _CUDNN:
        return _cudnn_convolution(computation, instruction)
    if is_library_product(instruction):
        return _dot(computation, instruction)
    return 0


def is_library_product(instruction: Instruction) -> bool:
    """Whether it is a custom call of a matrix product (cuBLAS, oneDNN)."""
    return instruction.opcode == "custom-call" and ("$matmul" in instruction.target or "gemm" in instruction.target)


def is_library_convolution(instruction: Instruction) -> bool:
    """Whether it is a custom call of a convolution (cuDNN)."""
    return instruction.opcode == "custom-call" and instruction.target in _CUDNN


def precision(computation: Computation, instruction: Instruction) -> Precision:
    """How the product is computed, by its operands' type and the precision asked for."""
    if any(bits in computation.shape_of(instruction.operands[0]).dtype for bits in ("16", "f8")):
        return "bfloat16"
    highest = "highest" in instruction.attribute("operand_precision") or '"HIGHEST"' in instruction.attributes
    return "float32_exact" if highest else "float32"


def _dot(computation: Computation, instruction: Instruction) -> int:
    contracted = re.search(r'lhs_contracting_d[^\d}\]]*([\d,"\s]+)', instruction.attributes)
    lhs = computation.shape_of(instruction.operands[0])
    axes = [int(axis) for axis in re.findall(r"\d+", contracted.group(1))] if contracted else []
    return 2 * instruction.shapes[0].elements * math.prod(lhs.dims[axis] for axis in axes)


def _cudnn_convolution(computation: Computation, instruction: Instruction) -> int:
    """Every tap on every output of the forward convolution, padding included: at most some percent too many."""
    first, second = (computation.shape_of(name) for name in instruction.operands[:2])
    result = instruction.shapes[0]
    _, kernel_labels, _ = _labels(instruction)
    outputs, kernel = {
        "forward": (result, second),
        "input": (first, second),
        "filter": (second, result),
    }[_CUDNN[instruction.target]]
    return 2 * outputs.elements * kernel.elements // kernel.dims[kernel_labels.index("o")]


def _convolution(computation: Computation, instruction: Instruction) -> int:
    """Taps that meet a value, as XLA's own cost analysis counts: padding and the holes of dilation cost nothing."""
    data, kernel = (computation.shape_of(name) for name in instruction.operands[:2])
    result = instruction.shapes[0]
    data_labels, kernel_labels, result_labels = _labels(instruction)
    window = _window(instruction.attribute("window"), len(data.dims) - 2)
    pairs = 1
    for axis, (size, stride, low, data_dilation, kernel_dilation) in enumerate(window):
        length = data.dims[data_labels.index(str(axis))]
        outputs = result.dims[result_labels.index(str(axis))]
        pairs *= _valid_pairs(length, outputs, size, stride, low, data_dilation, kernel_dilation)
    batch, features = (result.dims[result_labels.index(label)] for label in "bf")
    return 2 * batch * features * kernel.dims[kernel_labels.index("i")] * pairs


def _labels(instruction: Instruction) -> tuple[str, str, str]:
    """`b0f_0io->b0f` in three: axes of the data, of the kernel, of the result."""
    found = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", instruction.attributes)
    if found is None:
        raise ValueError(f"convolution {instruction.name} has no dim_labels")
    return found.group(1), found.group(2), found.group(3)


def _window(text: str, axes: int) -> list[tuple[int, int, int, int, int]]:
    """(size, stride, low padding, data dilation, kernel dilation) of each spatial axis."""
    fields = dict(part.split("=", 1) for part in text.strip("{}").split() if "=" in part)

    def values(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * axes

    low = [part.split("_")[0] for part in values("pad", "0_0")]
    sizes, strides = values("size", "1"), values("stride", "1")
    columns = (sizes, strides, low, values("lhs_dilate", "1"), values("rhs_dilate", "1"))
    return [(int(a), int(b), int(c), int(d), int(e)) for a, b, c, d, e in zip(*columns, strict=True)]


@lru_cache(maxsize=4096)
def _valid_pairs(
    length: int, outputs: int, size: int, stride: int, low: int, data_dilation: int, kernel_dilation: int
) -> int:
    """How many (output, tap) pairs of one axis meet a value."""
    position = np.arange(outputs)[:, None] * stride - low + np.arange(size)[None, :] * kernel_dilation
    inside = (position >= 0) & (position <= (length - 1) * data_dilation)
    return int((inside & (position % data_dilation == 0)).sum())
