"""What InfoNCE, the sigmoid loss and the L1 alignment do with one tile of tile, forward and backward (see `ring`).

The formulas are those of `reference`; each class is its sums over tile, and their derivative by each cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ecgclip_jax.objectives.reference import Metrics, Reduction, Scalar
from ecgclip_jax.objectives.ring import Kept, PerRow, Scalars, Tile, Total

PerPair = Float[Array, "rows columns"]
Row = Float[Array, "rows"]


class Softmax(NamedTuple):
    """A log-sum-exp so far: the largest logit, and the sum of exponentials relative to it."""

    top: Row
    total: Row

    def absorb(self, logits: PerPair, axis: int) -> Softmax:
        """With more logits; masked ones are -inf."""
        top = jnp.maximum(self.top, logits.max(axis))
        more = jnp.exp(logits - jnp.expand_dims(top, axis)).sum(axis)
        return Softmax(top, self.total * jnp.exp(self.top - top) + more)

    def log_sum(self, valid: Bool[Array, "rows"]) -> Row:
        """The log-sum-exp; zero for a row that does not count."""
        return jnp.where(valid, self.top + jnp.log(jnp.where(valid, self.total, 1)), 0)


class Rivals(NamedTuple):
    """What the metrics need of a row: its positive; the largest of its negatives, their sum and number."""

    positive: Row
    top: Row
    total: Row
    number: Row

    def absorb(self, tile: Tile) -> Rivals:
        """With the cosines of one tile more."""
        positive, total = (jnp.where(mask, tile.cosine, 0).sum(1) for mask in (tile.positive, tile.negative))
        number = tile.negative.sum(1, dtype=total.dtype)
        return Rivals(self.positive + positive, top_rival(self.top, tile, 1), self.total + total, self.number + number)

    def metrics(self, column_top: Row, valid: Bool[Array, "rows"], total: Total) -> Metrics:
        """`reference.similarity_metrics`; `column_top` is the largest negative of each column."""
        n_valid = _at_least_one(total(valid.astype(self.total.dtype)))
        found_by_row, found_by_column = (
            (valid & (self.positive > top)).astype(self.total.dtype) for top in (self.top, column_top)
        )
        return {
            "recall_at_1_ecg_to_text": total(found_by_row) / n_valid,
            "recall_at_1_text_to_ecg": total(found_by_column) / n_valid,
            "positive_cosine": total(self.positive) / n_valid,
            "negative_cosine": total(self.total) / _at_least_one(total(self.number)),
        }


def top_rival(top: Row, tile: Tile, axis: int) -> Row:
    """The largest cosine of a negative with one tile more."""
    return jnp.maximum(top, jnp.where(tile.negative, tile.cosine, -jnp.inf).max(axis))


class SoftmaxSide(NamedTuple):
    """A row or a column of InfoNCE; with soft targets also the sum of their weights, and of the weighted logits."""

    softmax: Softmax
    mass: Row
    weighted: Row


@dataclass(frozen=True)
class InfoNCE:
    """Cross-entropy of rows and that of columns, each with its weight; `soft_weight` 0 has one-hot targets."""

    row_weight: float
    column_weight: float
    soft_weight: float
    soft_scale: float

    def start(self, zeros: Row) -> tuple[PerRow, PerRow]:
        """No logit yet: the least finite number stands for the maximum, so that no difference of infinities occurs."""
        side = SoftmaxSide(Softmax(zeros + jnp.finfo(zeros.dtype).min, zeros), zeros, zeros)
        return (side, Rivals(zeros, zeros - jnp.inf, zeros, zeros)), (side, zeros - jnp.inf)

    def absorb(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerRow, PerRow]:
        """Both running softmaxes, what soft targets need, and the metrics' figures."""
        (row, rivals), (column, column_top) = rows, columns
        row, column = self._absorb_side(row, tile, scalars, 1), self._absorb_side(column, tile, scalars, 0)
        return (row, rivals.absorb(tile)), (column, top_rival(column_top, tile, 0))

    def _absorb_side(self, side: SoftmaxSide, tile: Tile, scalars: Scalars, axis: int) -> SoftmaxSide:
        logits = scalars["scale"] * tile.cosine
        softmax = side.softmax.absorb(jnp.where(tile.allowed, logits, -jnp.inf), axis)
        if not self.soft_weight:
            return side._replace(softmax=softmax)
        soft = self._soft(tile)
        return SoftmaxSide(softmax, side.mass + soft.sum(axis), side.weighted + (soft * logits).sum(axis))

    def _soft(self, tile: Tile) -> PerPair:
        """Soft targets before they are normalised: 1 for a row itself, which is always allowed, so no sum is zero."""
        soft = jnp.exp(self.soft_scale * (tile.similarity - 1))
        return jnp.where(tile.allowed, soft, 0)

    def finish(
        self, scalars: Scalars, rows: PerRow, columns: PerRow, valid: Bool[Array, "rows"], total: Total
    ) -> tuple[Scalar, Metrics, Kept]:
        """Log-sum-exp less expected logit, mean over valid rows; keeps each side's log-sum-exp and target's share."""
        (row, rivals), (column, column_top) = rows, columns
        losses = -self._hard() * scalars["scale"] * rivals.positive
        kept = []
        for side, side_weight in ((row, self.row_weight), (column, self.column_weight)):
            log_sum = side.softmax.log_sum(valid)
            share = side_weight * self.soft_weight / jnp.maximum(side.mass, jnp.finfo(side.mass.dtype).tiny)
            losses += side_weight * log_sum - share * side.weighted
            kept.append((log_sum, share))
        weight = 1 / _at_least_one(total(valid.astype(losses.dtype)))
        return weight * total(losses), rivals.metrics(column_top, valid, total), (kept[0], kept[1], weight)

    def gradient(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerPair, dict[str, Row]]:
        """By each logit: softmax of its row and of its column, less both targets."""
        (row_log_sum, row_share), (column_log_sum, column_share) = rows, columns
        logits = scalars["scale"] * tile.cosine
        d_logits = self.row_weight * jnp.exp(logits - row_log_sum[:, None])
        if self.column_weight:
            d_logits += self.column_weight * jnp.exp(logits - column_log_sum[None, :])
        d_logits = jnp.where(tile.allowed, d_logits, 0) - self._hard() * tile.positive
        if self.soft_weight:
            d_logits -= self._soft(tile) * (row_share[:, None] + column_share[None, :])
        return scalars["scale"] * d_logits, {"scale": (d_logits * tile.cosine).sum(1)}

    def _hard(self) -> float:
        """Share of the targets of both sides that lies on the positive."""
        return (self.row_weight + self.column_weight) * (1 - self.soft_weight)


@dataclass(frozen=True)
class Sigmoid:
    """Binary cross-entropy of every allowed pair; `soft`: with (1 + similarity) / 2 as its target."""

    soft: bool
    reduction: Reduction

    def start(self, zeros: Row) -> tuple[PerRow, PerRow]:
        """No pair yet."""
        return (zeros, Rivals(zeros, zeros - jnp.inf, zeros, zeros)), zeros - jnp.inf

    def absorb(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerRow, PerRow]:
        """Sum of a row's pair losses, in the form that does not cancel: max(x, 0) - x y + log(1 + exp(-|x|))."""
        losses, rivals = rows
        logits = scalars["scale"] * tile.cosine + scalars["bias"]
        pair_loss = jnp.maximum(logits, 0) - logits * self._target(tile) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        losses += jnp.where(tile.allowed, pair_loss, 0).sum(1)
        return (losses, rivals.absorb(tile)), top_rival(columns, tile, 0)

    def _target(self, tile: Tile) -> PerPair:
        return (1 + tile.similarity) / 2 if self.soft else tile.positive.astype(tile.cosine.dtype)

    def finish(
        self, scalars: Scalars, rows: PerRow, columns: PerRow, valid: Bool[Array, "rows"], total: Total
    ) -> tuple[Scalar, Metrics, Kept]:
        """Sum over pairs by the number of valid rows, or of allowed pairs."""
        losses, rivals = rows
        counted = valid.astype(losses.dtype)
        weight = 1 / _at_least_one(total(counted + rivals.number if self.reduction == "pairs" else counted))
        return weight * total(losses), rivals.metrics(columns, valid, total), ((), (), weight)

    def gradient(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerPair, dict[str, Row]]:
        """By each logit: its sigmoid less its target."""
        d_logits = jax.nn.sigmoid(scalars["scale"] * tile.cosine + scalars["bias"]) - self._target(tile)
        d_logits = jnp.where(tile.allowed, d_logits, 0)
        return scalars["scale"] * d_logits, {"scale": (d_logits * tile.cosine).sum(1), "bias": d_logits.sum(1)}


@dataclass(frozen=True)
class L1Alignment:
    """Absolute difference of cosine and similarity of every pair of valid rows."""

    reduction: Reduction

    def start(self, zeros: Row) -> tuple[PerRow, PerRow]:
        """No pair yet."""
        return zeros, ()

    def absorb(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerRow, PerRow]:
        """Sum of a row's differences."""
        difference = jnp.abs(tile.cosine - tile.similarity)
        return rows + jnp.where(tile.allowed, difference, 0).sum(1), ()

    def finish(
        self, scalars: Scalars, rows: PerRow, columns: PerRow, valid: Bool[Array, "rows"], total: Total
    ) -> tuple[Scalar, Metrics, Kept]:
        """Sum over pairs by the number of valid rows, or of pairs."""
        n_valid = total(valid.astype(rows.dtype))
        weight = 1 / _at_least_one(n_valid**2 if self.reduction == "pairs" else n_valid)
        return weight * total(rows), {}, ((), (), weight)

    def gradient(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerPair, dict[str, Row]]:
        """The sign of each difference."""
        sign = jnp.sign(tile.cosine - tile.similarity)
        return jnp.where(tile.allowed, sign, 0), {}


def _at_least_one(count: Scalar) -> Scalar:
    return jnp.maximum(count, 1)
