"""All pairs of two sharded sets of embeddings, one tile at a time: the B x B matrix never exists.

What every loss over pairs shares. The rows (ECGs) stay where they are; the columns (texts) travel round the devices by
`ppermute`, and each device compares its rows with the columns that visit it in tiles of at most `tile` x `tile` pairs.
A loss says what it remembers of a tile (`absorb`), what that makes in the end (`finish`), and a tile's derivatives
(`gradient`). The backward pass goes round a second time and computes every tile anew; no collective is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.spec.errors import UserError

Axes = tuple[str, ...]
Scalars = dict[str, Scalar]
"""The learned numbers of a loss, such as its scale."""
PerRow = Any
"""A pytree of arrays `[rows, ...]`: what is remembered of each row, or of each column."""
Kept = tuple[PerRow, PerRow, Scalar]
"""For the backward pass: what rows and columns keep, and the weight of the sum over pairs in the loss."""
Total = Callable[[Float[Array, "rows"]], Scalar]
"""Sum over the rows of all devices."""


@dataclass(frozen=True)
class Layout:
    """How pairs are cut: the mesh axes that split the batch, a tile's largest side, the type of matrix products.

    A narrow `matmul_dtype` (bfloat16) rounds what is multiplied; sums stay float32 or wider.
    """

    axes: Axes
    tile: int
    matmul_dtype: DTypeLike | None

    def n_devices(self) -> int:
        """Devices in the ring, by the mesh of the context.

        Raises:
            UserError: the mesh lacks an axis.
        """
        sizes = dict(jax.sharding.get_abstract_mesh().shape)
        unknown = [axis for axis in self.axes if axis not in sizes]
        if unknown:
            raise UserError(
                f"the loss expects a mesh with the axes {', '.join(self.axes)} and found {', '.join(sizes) or 'none'}; "
                "enter such a mesh (jax.set_mesh) or name the axes over which the batch is split"
            )
        return math.prod(sizes[axis] for axis in self.axes)


class Given(NamedTuple):
    """What decides which pairs count and what their targets are; it has no gradient."""

    factors: Float[Array, "batch factor"]
    """Unit vectors whose products are soft targets; without columns where targets are hard."""
    groups: Int[Array, "batch group"]
    valid: Bool[Array, "batch"]


class Tile(NamedTuple):
    """Some rows against some columns: what every loss is made of."""

    cosine: Float[Array, "rows columns"]
    similarity: Float[Array, "rows columns"]
    """Products of the factors; zeros where targets are hard."""
    positive: Bool[Array, "rows columns"]
    negative: Bool[Array, "rows columns"]
    masked: Bool[Array, "rows columns"]
    """Valid pairs that are neither, because they share a group."""
    rows: Given
    columns: Given
    column_position: Int[Array, "columns"]
    """In the global batch."""

    @property
    def allowed(self) -> Bool[Array, "rows columns"]:
        """Pairs that count at all."""
        return self.positive | self.negative


@runtime_checkable
class PairLoss(Protocol):
    """A loss that is a weighted sum over pairs; a static argument, so hashable."""

    def start(self, zeros: Float[Array, "rows"]) -> tuple[PerRow, PerRow]:
        """What is remembered of rows and of columns before the first tile."""
        ...

    def absorb(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerRow, PerRow]:
        """What is remembered after one tile more."""
        ...

    def finish(
        self, scalars: Scalars, rows: PerRow, columns: PerRow, valid: Bool[Array, "rows"], total: Total
    ) -> tuple[Scalar, Metrics, Kept]:
        """The loss, its metrics, and what the backward pass needs."""
        ...

    def gradient(
        self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow
    ) -> tuple[Float[Array, "rows columns"], dict[str, Float[Array, "rows"]]]:
        """A tile's derivatives, without the weight: by its cosines, and by each scalar as a sum per row."""
        ...


class _Side(NamedTuple):
    """Rows or columns with all that decides about their pairs; this is what travels."""

    embedding: Float[Array, "rows dim"]
    given: Given
    position: Int[Array, "rows"]
    kept: PerRow = ()


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pair_loss(
    loss: PairLoss,
    layout: Layout,
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scalars: Scalars,
    given: Given,
) -> tuple[Scalar, Metrics]:
    """The loss over all pairs and its metrics. Embeddings and scalars have gradients; metrics and `given` have none."""
    value, metrics, _ = _forward(loss, layout, ecg, text, scalars, given)
    return value, metrics


def _forward(
    loss: PairLoss, layout: Layout, ecg: Array, text: Array, scalars: Scalars, given: Given
) -> tuple[Scalar, Metrics, Kept]:
    def local(ecg: Array, text: Array, given: Given, position: Array, scalars: Scalars) -> tuple[Scalar, Metrics, Kept]:
        zeros = jnp.zeros(ecg.shape[0], _sum_dtype(ecg, text))
        scalars = _cast(scalars, zeros.dtype)

        def visit(row: _Side, column: _Side, states: tuple[PerRow, PerRow]) -> tuple[PerRow, PerRow]:
            return loss.absorb(_tile(row, column, layout), scalars, *states)

        rows, columns = _sides(ecg, text, given, position, layout)
        states = _sweep(visit, rows, columns, loss.start(zeros), layout)
        return loss.finish(scalars, *states, given.valid, partial(_total, axes=layout.axes))

    rows, whole = PartitionSpec(layout.axes), PartitionSpec()
    sharded = _over_devices(local, layout, (rows, rows, rows, rows, whole), (whole, whole, (rows, rows, whole)))
    result: tuple[Scalar, Metrics, Kept] = sharded(ecg, text, given, _positions(ecg), scalars)
    return result


def _forward_keeping(
    loss: PairLoss, layout: Layout, ecg: Array, text: Array, scalars: Scalars, given: Given
) -> tuple[tuple[Scalar, Metrics], tuple[Any, ...]]:
    value, metrics, kept = _forward(loss, layout, ecg, text, scalars, given)
    return (value, metrics), (ecg, text, scalars, given, kept)


def _backward(
    loss: PairLoss, layout: Layout, residuals: tuple[Any, ...], cotangents: tuple[Scalar, Metrics]
) -> tuple[Array, Array, Scalars, None]:
    ecg, text, scalars, given, kept = residuals

    def local(
        ecg: Array, text: Array, given: Given, position: Array, scalars: Scalars, kept: Kept, cotangent: Scalar
    ) -> tuple[Array, Array, Scalars]:
        kept_rows, kept_columns, weight = kept
        weight = cotangent * weight
        zeros = jnp.zeros(ecg.shape, _sum_dtype(ecg, text))
        scalars = _cast(scalars, zeros.dtype)

        def visit(row: _Side, column: _Side, states: tuple[PerRow, PerRow]) -> tuple[PerRow, PerRow]:
            (d_ecg, d_scalars), d_text = states
            by_cosine, by_scalars = loss.gradient(_tile(row, column, layout), scalars, row.kept, column.kept)
            by_cosine = weight * by_cosine
            d_ecg += _product("rc,cd->rd", by_cosine, column.embedding, layout)
            d_text += _product("rc,rd->cd", by_cosine, row.embedding, layout)
            return (d_ecg, jax.tree.map(jnp.add, d_scalars, by_scalars)), d_text

        start = (zeros, dict.fromkeys(scalars, zeros[:, 0])), zeros
        rows, columns = _sides(ecg, text, given, position, layout)
        rows, columns = rows._replace(kept=kept_rows), columns._replace(kept=kept_columns)
        (d_ecg, d_scalars), d_text = _sweep(visit, rows, columns, start, layout)
        by_scalar = {name: weight * _total(d, axes=layout.axes) for name, d in d_scalars.items()}
        return d_ecg.astype(ecg.dtype), d_text.astype(text.dtype), by_scalar

    rows, whole = PartitionSpec(layout.axes), PartitionSpec()
    in_specs = (rows, rows, rows, rows, whole, (rows, rows, whole), whole)
    sharded = _over_devices(local, layout, in_specs, (rows, rows, whole))
    d_ecg, d_text, d_scalars = sharded(ecg, text, given, _positions(ecg), scalars, kept, cotangents[0])
    return d_ecg, d_text, {name: d.astype(scalars[name].dtype) for name, d in d_scalars.items()}, None


pair_loss.defvjp(_forward_keeping, _backward)


def over_columns(
    absorb: Callable[[Tile, PerRow], PerRow],
    start: Callable[[Float[Array, "rows"]], PerRow],
    layout: Layout,
    ecg: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    given: Given,
) -> PerRow:
    """What each row remembers of all columns, tile by tile, from `start` of zeros on; without gradient."""

    def local(ecg: Array, text: Array, given: Given, position: Array) -> PerRow:
        def visit(row: _Side, column: _Side, states: tuple[PerRow, PerRow]) -> tuple[PerRow, PerRow]:
            return absorb(_tile(row, column, layout), states[0]), ()

        zeros = jnp.zeros(ecg.shape[0], _sum_dtype(ecg, text))
        return _sweep(visit, *_sides(ecg, text, given, position, layout), (start(zeros), ()), layout)[0]

    rows = PartitionSpec(layout.axes)
    arguments = jax.lax.stop_gradient((ecg, text, given))
    return _over_devices(local, layout, (rows,) * 4, rows)(*arguments, _positions(ecg))


def _sweep(
    visit: Callable[[_Side, _Side, tuple[PerRow, PerRow]], tuple[PerRow, PerRow]],
    rows: _Side,
    columns: _Side,
    start: tuple[PerRow, PerRow],
    layout: Layout,
) -> tuple[PerRow, PerRow]:
    """States of this device's rows and of its own columns after these have been round and come home.

    `visit` makes new states of a tile's rows and columns from their old ones.
    """
    n_rows = rows.position.shape[0]
    n_tiles = -(-n_rows // layout.tile)
    side = -(-n_rows // n_tiles)

    def block(columns: _Side, states: tuple[PerRow, PerRow]) -> tuple[PerRow, PerRow]:
        """All tiles of this device's rows and the columns that are here now."""

        def one_tile(step: Array, states: tuple[PerRow, PerRow]) -> tuple[PerRow, PerRow]:
            (row, at_row), (column, at_column) = _cut(rows, step // n_tiles, side), _cut(columns, step % n_tiles, side)
            seen = _slice(states[0], at_row, side), _slice(states[1], at_column, side)
            row_state, column_state = visit(row, column, seen)
            return _paste(states[0], row_state, at_row), _paste(states[1], column_state, at_column)

        after: tuple[PerRow, PerRow] = jax.lax.fori_loop(0, n_tiles**2, one_tile, states)
        return after

    n_devices = layout.n_devices()
    start = jax.tree.map(partial(_varying, axes=layout.axes), start)
    if n_devices == 1:
        return block(columns, start)
    neighbours = [(device, (device + 1) % n_devices) for device in range(n_devices)]
    send = partial(jax.tree.map, partial(jax.lax.ppermute, axis_name=layout.axes, perm=neighbours))

    def hop(_: Array, here: tuple[_Side, tuple[PerRow, PerRow]]) -> tuple[_Side, tuple[PerRow, PerRow]]:
        columns, states = here
        coming = send(columns)  # needs no result of the tiles, so it can be under way meanwhile
        row_states, column_states = block(columns, states)
        return coming, (row_states, send(column_states))

    states: tuple[PerRow, PerRow]
    _, states = jax.lax.fori_loop(0, n_devices, hop, (columns, start))
    return states


def _sides(ecg: Array, text: Array, given: Given, position: Array, layout: Layout) -> tuple[_Side, _Side]:
    """Rows and columns; what a narrow product would round is rounded before it travels."""
    if layout.matmul_dtype is not None:
        ecg, text = ecg.astype(layout.matmul_dtype), text.astype(layout.matmul_dtype)
    return _Side(ecg, given, position), _Side(text, given, position)


def _tile(rows: _Side, columns: _Side, layout: Layout) -> Tile:
    valid = rows.given.valid[:, None] & columns.given.valid[None, :]
    positive = valid & (rows.position[:, None] == columns.position[None, :])
    negative = valid & ~positive
    for row_ids, column_ids in zip(rows.given.groups.T, columns.given.groups.T, strict=True):
        negative &= row_ids[:, None] != column_ids[None, :]
    masked = valid & ~positive & ~negative
    cosine = _product("rd,cd->rc", rows.embedding, columns.embedding, layout)
    similarity = _product("rd,cd->rc", rows.given.factors, columns.given.factors, layout)
    similarity = similarity.astype(cosine.dtype)
    return Tile(cosine, similarity, positive, negative, masked, rows.given, columns.given, columns.position)


def _product(contraction: str, first: Array, second: Array, layout: Layout) -> Array:
    """Matrix product of factors as narrow as the layout has them, summed in float32 or wider."""
    wide = _sum_dtype(first, second)
    narrow = wide if layout.matmul_dtype is None else layout.matmul_dtype
    return jnp.einsum(
        contraction,
        first.astype(narrow),
        second.astype(narrow),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=wide,
    )


def _cut(side: _Side, tile: Array, size: int) -> tuple[_Side, Array]:
    """One tile's rows and where they start.

    Where tiles do not divide the rows the last one overlaps its neighbour, and what was seen before is not valid.
    """
    wanted = tile * size
    start = jnp.minimum(wanted, side.position.shape[0] - size)
    part = _slice(side, start, size)
    unseen = start + jnp.arange(size) >= wanted
    return part._replace(given=part.given._replace(valid=part.given.valid & unseen)), start


def _slice(tree: Any, start: Array, size: int) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)


def _paste(tree: Any, part: Any, start: Array) -> Any:
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), tree, part)


def _cast(scalars: Scalars, dtype: DTypeLike) -> Scalars:
    return {name: scalar.astype(dtype) for name, scalar in scalars.items()}


def _over_devices(local: Callable[..., Any], layout: Layout, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    if not layout.axes:
        return local
    return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs)


def _total(values: Float[Array, "rows"], axes: Axes) -> Scalar:
    total: Scalar = jax.lax.psum(values.sum(), axes)
    return total


def _varying(x: Array, axes: Axes) -> Array:
    """A constant that from now on may differ between devices (`shard_map` checks it)."""
    return jax.lax.pcast(x, axes, to="varying") if axes else x


def _positions(ecg: Float[Array, "batch dim"]) -> Int[Array, "batch"]:
    return jnp.arange(ecg.shape[0], dtype=jnp.int32)


def _sum_dtype(*arrays: Array) -> Any:
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
