"""MERL's 1-D ResNet, which ECGCLIP shares: stem without max-pool, four stages, attention or mean pooling over time.

Source: released code of MERL (`utils/resnet1d.py`, `utils_builder.py`) and of ECG-CLIP (the same file with 8 leads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ecgclip_jax.contracts import EcgInput, EcgOutput, RowKeys
from ecgclip_jax.models.batch_norm import BatchNorm, FoldedNorm, Norm, relu_of_norms
from ecgclip_jax.models.layers import CONVOLUTION_OUTPUT, Conv1d, Linear, Rngs, kept_as
from ecgclip_jax.models.pooling import AttentionPool
from ecgclip_jax.models.recompute import Maps, run_lean
from ecgclip_jax.spec.encoders import ResNet1DSpec

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks per stage; 10, 18 and 34 have basic blocks, 50 and 101 bottlenecks of four times the width."""
STAGE_STRIDES = (1, 2, 2, 2)
TOTAL_STRIDE = 16
"""Input samples per time step of the trunk's map."""


def trunk_steps(samples: int) -> int:
    """Time steps of the trunk's map for an input of `samples`: 313 for 5000, 256 for 4096."""
    return math.ceil(samples / TOTAL_STRIDE)


MakeNorm = Callable[[int], Norm]
"""A norm of so many channels."""


class ResidualBlock(nnx.Module):
    """ReLU(residual(x) + shortcut(x)): k3-k3, or k1-k3-k1 as a bottleneck; the stride lies in the first k3."""

    def __init__(
        self, spec: ResNet1DSpec, norm: MakeNorm, width_in: int, width: int, *, stride: int, rngs: Rngs
    ) -> None:
        plan = [(3, width, stride), (3, width, 1)]
        if spec.depth >= 50:
            plan = [(1, width, 1), (3, width, stride), (1, 4 * width, 1)]
        self.convolutions = len(plan)
        width_out = width_in
        for number, (kernel_size, width_next, step) in enumerate(plan, start=1):
            setattr(self, f"conv{number}", Conv1d(width_out, width_next, kernel_size, stride=step, rngs=rngs))
            setattr(self, f"norm{number}", norm(width_next))
            width_out = width_next
        self.has_shortcut = stride != 1 or width_in != width_out
        if self.has_shortcut:
            self.shortcut_conv = Conv1d(width_in, width_out, 1, stride=stride, rngs=rngs)
            self.shortcut_norm = norm(width_out)

    def __call__(
        self,
        x: Float[Array, "batch time width_in"],
        around: Float[Array, "batch time width_in"],
        *,
        train: bool,
    ) -> Float[Array, "batch steps width_out"]:
        """One step per `stride` steps of the input; `around` is the same input, of which the shortcut is made."""
        y, last = x, self.convolutions
        for number in range(1, last):
            convolved = kept_as(CONVOLUTION_OUTPUT, self._conv(number)(y))
            y = relu_of_norms([self._norm(number)], [convolved], train=train)
        y = self._conv(last)(y)
        if self.has_shortcut:
            narrow = kept_as(CONVOLUTION_OUTPUT, self.shortcut_conv(around))
            return relu_of_norms([self._norm(last), self.shortcut_norm], [y, narrow], train=train)
        return relu_of_norms([self._norm(last)], [y], around, train=train)

    def _conv(self, number: int) -> Conv1d:
        conv: Conv1d = getattr(self, f"conv{number}")
        return conv

    def _norm(self, number: int) -> Norm:
        norm: Norm = getattr(self, f"norm{number}")
        return norm


class Stage(nnx.Module):
    """Residual blocks `block0`, `block1` … of one width; the first carries the stride."""

    def __init__(
        self,
        spec: ResNet1DSpec,
        norm: MakeNorm,
        width_in: int,
        width: int,
        *,
        blocks: int,
        stride: int,
        rngs: Rngs,
    ) -> None:
        self.blocks = blocks
        for number in range(blocks):
            block = ResidualBlock(spec, norm, width_in, width, stride=stride if number == 0 else 1, rngs=rngs)
            setattr(self, f"block{number}", block)
            width_in = width * (4 if spec.depth >= 50 else 1)

    def parts(self) -> list[ResidualBlock]:
        """The blocks one after the other."""
        return [getattr(self, f"block{number}") for number in range(self.blocks)]


class ResNet1D(nnx.Module):
    """The ECG tower: trunk, then a 1x1 convolution and attention pooling, or the mean over time.

    As published, masks of the input are not used: missing leads and padding are zeros like any other.
    `EcgOutput.pooled` is [batch, pool_width] (or the trunk's width with mean pooling). `folded` towers take weights
    from `models.folding`. With `kept` the backward pass keeps of all blocks but the last only what has these names
    (`layers.kept_as`), and what goes into them.
    """

    def __init__(
        self,
        spec: ResNet1DSpec,
        *,
        leads: int,
        samples: int,
        rngs: Rngs,
        folded: bool = False,
        kept: tuple[str, ...] | None = None,
    ) -> None:
        norm = FoldedNorm if folded else partial(BatchNorm, groups=spec.norm_groups, momentum=spec.norm_momentum)
        self.dtype = jnp.dtype(spec.dtype)
        self.pooling = spec.pooling
        self.kept = kept
        self.stem = Conv1d(leads, spec.width, 7, stride=2, rngs=rngs)
        self.stem_norm = norm(spec.width)
        width_in = spec.width
        for number, (blocks, stride) in enumerate(zip(BLOCKS[spec.depth], STAGE_STRIDES, strict=True), start=1):
            width = spec.width * 2 ** (number - 1)
            stage = Stage(spec, norm, width_in, width, blocks=blocks, stride=stride, rngs=rngs)
            setattr(self, f"stage{number}", stage)
            width_in = width * (4 if spec.depth >= 50 else 1)
        if spec.pooling == "attention":
            # MERL's 1x1 convolution; on [batch, time, channel] that is a linear layer, initialisation included.
            self.downconv = Linear(width_in, spec.pool_width, rngs=rngs)
            self.attention_pool = AttentionPool(trunk_steps(samples), spec.pool_width, spec.pool_heads, rngs=rngs)

    def __call__(self, ecg: EcgInput, *, train: bool, keys: RowKeys | None = None) -> EcgOutput:
        """`keys` are taken because every tower takes them: this one has no dropout."""
        tokens = self.trunk(ecg.signal, train=train)
        features = _mean_over_time(tokens)
        if self.pooling == "mean":
            return EcgOutput(pooled=features, features=features, tokens=tokens, pooled_mean=features)
        pooled = self.attention_pool(tokens, self.downconv)
        return EcgOutput(pooled=pooled.attended, features=features, tokens=tokens, pooled_mean=pooled.mean)

    def trunk(self, signal: Float[Array, "batch time lead"], *, train: bool) -> Float[Array, "batch steps width"]:
        """The map before pooling, one step per 16 samples, in the tower's compute dtype."""
        stages = [getattr(self, f"stage{number}") for number in range(1, len(STAGE_STRIDES) + 1)]
        first, *blocks = [block for stage in stages for block in stage.parts()]
        *lean, last = [[self.stem, self.stem_norm, first], *([block] for block in blocks)]
        run = partial(_run, train=train)
        xs: Maps = (signal.astype(self.dtype),)
        for part in lean:
            xs = run(part, *xs) if self.kept is None or not train else run_lean(run, part, xs, self.kept)
        return run(last, *xs)[0]


def _run(part: list[Any], *xs: Float[Array, "batch _ _"], train: bool) -> Maps:
    """A block, or the stem and the first one, whose output comes twice: each of its two readers has a gradient for it.

    Left as one sum, that gradient would be stored before it is used.
    """
    *stem, block = part
    if stem:
        convolution, norm = stem
        x = kept_as(CONVOLUTION_OUTPUT, convolution(*xs))
        xs = (relu_of_norms([norm], [x], train=train, forks=True),) * 2
    y = block(*xs, train=train)
    return y, y


def _mean_over_time(x: Float[Array, "batch time width"]) -> Float[Array, "batch width"]:
    return x.astype(jnp.float32).mean(axis=1)
