"""BatchNorm over groups of the global batch, with the shortcut and the ReLU that follow it.

A training step is bound by the bytes it moves, and most of them move around convolutions, not in them. So norms, their
sum and the ReLU are one function with a backward pass of its own, which reads each array once for the sums and once
for the gradients. Left to automatic differentiation, XLA for GPUs writes the gradient before the ReLU in between and
reads it three times more. Values are those of the plain formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ecgclip_jax.models.layers import BLOCK_OUTPUT, NORM_MOMENTS, kept_as

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's default, which MERL and ECGCLIP keep."""

Map = Float[Array, "batch time width"]
Statistic = Float[Array, "groups width"]
Rows = Float[Array, "rows 1 width"]
"""A statistic for each row of a batch (one row serves all where there is one group), ready to broadcast over time."""
_TwoSums = tuple[Float[Array, "batch width"], Float[Array, "batch width"]]
_Arrays = TypeVar("_Arrays")


class BatchNorm(nnx.Module):
    """BatchNorm over `groups` contiguous groups of the global batch, statistics in float32 whatever the input is.

    In training each group is normalised by its own biased variance, and the running statistics move once by the mean
    over the groups of mean and unbiased variance (PyTorch's convention of momentum: the weight of the new value).
    The large array is only ever summed over time; groups are formed from the [batch, width] sums, so that a batch
    sharded over devices needs one small all-reduce and no reshape of the activations, however many groups there are.
    """

    def __init__(self, width: int, *, groups: int = 1, momentum: float = 0.1) -> None:
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(width, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(width, jnp.float32))
        self.groups = groups
        self.momentum = momentum

    def __call__(self, x: Map, *, train: bool) -> Map:
        """Normalised by the groups' own statistics when `train`, by the running ones otherwise."""
        return _applied([self], [x], None, train=train, form=_Form(self.groups, False, False))

    def move_running(self, mean: Statistic, var: Statistic, count: int) -> None:
        """Moves the running statistics towards those of groups of `count` values."""
        unbiased = var * (count / max(count - 1, 1))
        for running, found in ((self.mean, mean), (self.var, unbiased)):
            step = self.momentum * (lax.stop_gradient(found.mean(axis=0)) - running[...])
            # Not `running[...] += step`, which asks tracers for their sharding: a tenth of a step's tracing time.
            running.set_value(running[...] + step)


class FoldedNorm(nnx.Module):
    """What is left of a norm whose factor went into the convolution before it (`models.folding`): an offset."""

    def __init__(self, width: int) -> None:
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))


Norm = BatchNorm | FoldedNorm


def relu_of_norms(
    norms: Sequence[Norm], xs: Sequence[Map], shortcut: Map | None = None, *, train: bool, forks: bool = False
) -> Map:
    """ReLU(Σ norms[i](xs[i]) + shortcut), in float32 inside and in the dtype of `xs` outside.

    `forks` says that more than one reads the output, whose gradient is then a sum: a hint, which changes no value.

    Raises:
        ValueError: folded norms, in training.
    """
    live = [norm for norm in norms if isinstance(norm, BatchNorm)]
    if live:
        return _applied(live, xs, shortcut, train=train, form=_Form(live[0].groups, True, forks))
    if train:
        raise ValueError("a folded norm has no statistics: it is for a tower in use, not for training")
    return _offset_relu([norm for norm in norms if isinstance(norm, FoldedNorm)], xs, shortcut)


def _offset_relu(norms: Sequence[FoldedNorm], xs: Sequence[Map], shortcut: Map | None) -> Map:
    """In the dtype of `xs` all through: so XLA for GPUs finds cuDNN's convolution with offset, sum and ReLU in it."""
    maps = [x + norm.bias[...].astype(x.dtype) for norm, x in zip(norms, xs, strict=True)]
    return jax.nn.relu(sum(maps[1:] if shortcut is None else [*maps[1:], shortcut], start=maps[0]))


def _applied(norms: Sequence[BatchNorm], xs: Sequence[Map], shortcut: Map | None, *, train: bool, form: _Form) -> Map:
    if not train:
        moments = tuple(Moments(norm.mean[...][None], norm.var[...][None]) for norm in norms)
        return _output(_parameters(norms), moments, tuple(xs), shortcut, form.relu)
    y, moments = _train(form, _parameters(norms), tuple(xs), shortcut)
    for norm, x, (mean, var) in zip(norms, xs, moments, strict=True):
        norm.move_running(mean, var, count=x.shape[0] // form.groups * x.shape[1])
    return y


class _Form(NamedTuple):
    """What is computed, and how it is used."""

    groups: int
    relu: bool
    forks: bool


class Moments(NamedTuple):
    """Mean and biased variance of each group."""

    mean: Statistic
    var: Statistic


class _Parameters(NamedTuple):
    scale: Float[Array, "width"]
    bias: Float[Array, "width"]


def _parameters(norms: Sequence[BatchNorm]) -> tuple[_Parameters, ...]:
    return tuple(_Parameters(norm.scale[...], norm.bias[...]) for norm in norms)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _train(
    form: _Form, parameters: tuple[_Parameters, ...], xs: tuple[Map, ...], shortcut: Map | None
) -> tuple[Map, tuple[Moments, ...]]:
    """The output and each norm's moments, through which no gradient flows back (they only move running statistics)."""
    moments = tuple(group_moments(x, form.groups) for x in xs)
    return _normalised(form, parameters, moments, xs, shortcut), moments


def _normalised(
    form: _Form,
    parameters: tuple[_Parameters, ...],
    moments: tuple[Moments, ...],
    xs: tuple[Map, ...],
    shortcut: Map | None,
) -> Map:
    return _read_anew(_output(parameters, moments, xs, shortcut, form.relu))


def _output(
    parameters: tuple[_Parameters, ...],
    moments: tuple[Moments, ...],
    xs: tuple[Map, ...],
    shortcut: Map | None,
    relu: bool,
) -> Map:
    y = _before_relu(parameters, moments, xs, shortcut)
    return (jax.nn.relu(y) if relu else y).astype(xs[0].dtype)


def _before_relu(
    parameters: tuple[_Parameters, ...], moments: tuple[Moments, ...], xs: tuple[Map, ...], shortcut: Map | None
) -> Map:
    total = jnp.zeros((), jnp.float32) if shortcut is None else shortcut.astype(jnp.float32)
    for (scale, bias), (mean, var), x in zip(parameters, moments, xs, strict=True):
        factor = scale * lax.rsqrt(var + BATCH_NORM_EPSILON)
        mean, factor = (_rows_of_groups(statistic, x.shape[0]) for statistic in (mean, factor))
        total = total + ((x.astype(jnp.float32) - mean) * factor + bias)
    return total


class _Kept(NamedTuple):
    """What the backward pass reads."""

    parameters: tuple[_Parameters, ...]
    moments: tuple[Moments, ...]
    xs: tuple[Map, ...]
    y: Map | None
    """The output, where it tells the ReLU's side; a single input tells it too and has to be read anyway."""


def _forward(
    form: _Form, parameters: tuple[_Parameters, ...], xs: tuple[Map, ...], shortcut: Map | None
) -> tuple[tuple[Map, tuple[Moments, ...]], tuple[_Kept, bool]]:
    # Names as rematerialisation knows them stand here, where the backward pass takes what it keeps.
    moments = tuple(group_moments(x, form.groups) for x in xs)
    moments = tuple(Moments(*(kept_as(NORM_MOMENTS, part) for part in each)) for each in moments)
    y = _normalised(form, parameters, moments, xs, shortcut)
    alone = len(xs) == 1 and shortcut is None
    if not alone:
        y = kept_as(BLOCK_OUTPUT, y)
    return (y, moments), (_Kept(parameters, moments, xs, y if form.relu and not alone else None), shortcut is not None)


def _backward(
    form: _Form, kept: tuple[_Kept, bool], gradients: tuple[Map, tuple[Moments, ...]]
) -> tuple[tuple[_Parameters, ...], tuple[Map, ...], Map | None]:
    (parameters, moments, xs, y), has_shortcut = kept
    by_y, _ = gradients
    groups, relu = form.groups, form.relu
    # The gradient before the ReLU is stored where a shortcut takes it too or a sum would have to be added up twice.
    stored = y is not None or form.forks
    xs, y = _read_anew((xs, y))
    if not stored:
        by_y = _read_anew((xs, by_y))[1]
    by_z = _through_relu(relu, parameters, moments, xs, y, by_y)
    total, *along = _sums(by_z, xs, moments, groups)
    if stored:
        by_z = _read_anew(by_z)
    else:
        xs, by_y, total, along = _read_anew((xs, by_y, total, along))
        by_z = _through_relu(relu, parameters, moments, xs, y, by_y)
    count = by_z.shape[0] // groups * by_z.shape[1]
    by_parameters, by_xs = [], []
    for own, (mean, var), x, product in zip(parameters, moments, xs, along, strict=True):
        rstd = lax.rsqrt(var + BATCH_NORM_EPSILON)
        by_parameters.append(_Parameters((product * rstd).sum(axis=0), total.sum(axis=0)))
        centre, factor, offset, slope = (
            _rows_of_groups(statistic, x.shape[0])
            for statistic in (mean, own.scale * rstd, total / count, product * rstd * rstd / count)
        )
        by_x = factor * (by_z.astype(jnp.float32) - offset - (x.astype(jnp.float32) - centre) * slope)
        by_xs.append(by_x.astype(x.dtype))
    return tuple(by_parameters), tuple(by_xs), by_z if has_shortcut else None


_train.defvjp(_forward, _backward)


def _through_relu(
    relu: bool,
    parameters: tuple[_Parameters, ...],
    moments: tuple[Moments, ...],
    xs: tuple[Map, ...],
    y: Map | None,
    by_y: Map,
) -> Map:
    """The gradient before the ReLU."""
    if not relu:
        return by_y
    passed = _before_relu(parameters, moments, xs, None) > 0 if y is None else y > 0
    return jnp.where(passed, by_y, 0)


def _sums(by_z: Map, xs: tuple[Map, ...], moments: tuple[Moments, ...], groups: int) -> list[Statistic]:
    """Sums of the gradient, and of its products with each centred input (Ioffe and Szegedy 2015, section 3)."""
    wide = by_z.astype(jnp.float32)
    products = [
        wide * (x.astype(jnp.float32) - _rows_of_groups(mean, x.shape[0]))
        for x, (mean, _) in zip(xs, moments, strict=True)
    ]
    if len(products) == 1:
        sums: tuple[Float[Array, "batch width"], ...] = _two_sums(wide, products[0])
    else:
        sums = (wide.sum(axis=1), *_two_sums(*products))
    return [_over_groups(rows, groups) for rows in sums]


def _two_sums(a: Map, b: Map) -> _TwoSums:
    """Sums over time of two maps that are made of the same arrays.

    On GPUs as one sum of complex numbers: XLA's model of them takes two sums for two reads of what they share, so it
    would rather write the gradient before the ReLU first than compute it inside the sums.
    """

    def as_one(a: Map, b: Map) -> _TwoSums:
        both = lax.complex(a, b).sum(axis=1)
        return jnp.real(both), jnp.imag(both)

    sums: _TwoSums = lax.platform_dependent(a, b, cuda=as_one, default=lambda a, b: (a.sum(axis=1), b.sum(axis=1)))
    return sums


def _read_anew(arrays: _Arrays) -> _Arrays:
    """The same arrays, which XLA for GPUs then neither keeps intermediate results of nor merges computations on.

    It knows no fusion of convolutions with what surrounds them, so each array here is written and read anyway, and
    computing from it twice is cheaper than keeping a result. On TPUs, where convolutions fuse, it would be in the way.
    """
    fresh: _Arrays = lax.platform_dependent(arrays, cuda=lax.optimization_barrier, default=lambda same: same)
    return fresh


def group_moments(x: Map, groups: int) -> Moments:
    """Mean and biased variance over batch and time of each of `groups` contiguous groups, in one pass over `x`.

    Raises:
        ValueError: `groups` does not divide the batch.
    """
    batch, time, _ = x.shape
    if batch % groups:
        raise ValueError(
            f"BatchNorm: {groups} groups do not divide a batch of {batch}; change norm_groups or the batch"
        )
    x = x.astype(jnp.float32)
    count = batch // groups * time
    mean = _group_sums(x, groups) / count
    # Rounding can push the difference of a constant channel just below zero.
    return Moments(mean, jnp.maximum(_group_sums(x * x, groups) / count - mean * mean, 0))


def _group_sums(values: Map, groups: int) -> Statistic:
    return _over_groups(values.sum(axis=1), groups)


def _over_groups(rows: Float[Array, "batch width"], groups: int) -> Statistic:
    sums: Array = rows.reshape(groups, -1, rows.shape[1]).sum(axis=1)
    return sums


def _rows_of_groups(statistic: Statistic, batch: int) -> Rows:
    groups = statistic.shape[0]
    rows = statistic if groups == 1 else jnp.repeat(statistic, batch // groups, axis=0)
    return rows[:, None, :]
