"""CLEF's two losses in tiles (see `ring`): same values and gradients as `clef_reference`, no matrix of all pairs.

Two sweeps over the pairs forward and one backward. The first finds the two views that are least alike, because L_d
scales every similarity by the least and the largest of the batch; both are then plain numbers with a gradient of their
own. The largest needs no search: a unit vector is most like itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ecgclip_jax.objectives.clef_reference import LOG_EPSILON, MINMAX_EPSILON, Guidance
from ecgclip_jax.objectives.pair_losses import PerPair, Row, Softmax
from ecgclip_jax.objectives.reference import Metrics, Scalar, at_least_float32
from ecgclip_jax.objectives.ring import Axes, Given, Kept, Layout, PerRow, Scalars, Tile, Total, over_columns, pair_loss
from ecgclip_jax.objectives.tiled import TILE
from ecgclip_jax.spec.objectives import ClefSpec


def loss(
    spec: ClefSpec, embedding: Float[Array, "rows dim"], guidance: Guidance, *, axes: Axes = (), tile: int = TILE
) -> tuple[Scalar, Metrics]:
    """`clef_reference.loss` in tiles, for rows split over `axes`; gradients by `embedding` alone."""
    layout = Layout(axes, tile, None)
    rows = embedding.shape[0]
    risk, completeness = guidance
    span = jnp.square(risk.max() - risk.min()) + MINMAX_EPSILON
    factors = jnp.stack([risk * jax.lax.rsqrt(span), completeness], axis=1)
    record = (jnp.arange(rows, dtype=jnp.int32) // 2)[:, None]
    given = Given(factors, record, jnp.ones(rows, bool))
    scalars = {
        "low": _least_cosine(embedding, given, layout),
        "high": jnp.square(at_least_float32(embedding)).sum(axis=1).max(),
    }
    share = 0.5 if spec.reduction == "mean" else 1.0
    pairs = ClefPairs(spec.temperature, spec.alpha, share * spec.contrast_weight, share * spec.distance_weight, rows)
    return pair_loss(pairs, layout, embedding, embedding, scalars, given)


def _least_cosine(embedding: Float[Array, "rows dim"], given: Given, layout: Layout) -> Scalar:
    """Of all pairs; differentiable by the two rows whose cosine it is."""

    def absorb(tile: Tile, state: PerRow) -> PerRow:
        least, position = state
        nearest = tile.cosine.argmin(axis=1)
        found = jnp.take_along_axis(tile.cosine, nearest[:, None], axis=1)[:, 0]
        return jnp.minimum(least, found), jnp.where(found < least, tile.column_position[nearest], position)

    def start(zeros: Row) -> PerRow:
        return zeros + jnp.inf, zeros.astype(jnp.int32)

    least, position = over_columns(absorb, start, layout, embedding, embedding, given)
    row = least.argmin()
    # Sums over a mask, not an index: on a mesh the row lies on one device, and only its own values travel.
    number = jnp.arange(len(least), dtype=jnp.int32)
    wide = at_least_float32(embedding)
    column = jnp.where(number == row, position, 0).sum()
    first, second = (jnp.where((number == one)[:, None], wide, 0).sum(axis=0) for one in (row, column))
    least_cosine: Array = (first * second).sum()
    return least_cosine


class _State(NamedTuple):
    """What a row remembers of its pairs."""

    negatives: Softmax
    """Of D + logit over the negatives: the weights before they are normalised."""
    mass: Row
    """Sum of exp(D) over the negatives."""
    top: Row
    """Largest logit but its own."""
    partner: Row
    """Logit of the record's other view."""
    squares: Row
    """Of L_d."""


@dataclass(frozen=True)
class ClefPairs:
    """L_w and L_d with their shares; a tile's positives are the rows themselves, its masked ones their other views."""

    temperature: float
    alpha: float
    contrast_share: float
    distance_share: float
    n_rows: int

    def start(self, zeros: Row) -> tuple[PerRow, PerRow]:
        """No pair yet."""
        lowest = zeros + jnp.finfo(zeros.dtype).min
        return _State(Softmax(lowest, zeros), zeros, lowest, zeros, zeros), ()

    def absorb(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerRow, PerRow]:
        """The sums of one tile more."""
        state: _State = rows
        distance, logits = self._distance(tile), tile.cosine / self.temperature
        others = jnp.where(tile.negative | tile.masked, logits, -jnp.inf)
        after = _State(
            state.negatives.absorb(jnp.where(tile.negative, distance + logits, -jnp.inf), 1),
            state.mass + jnp.where(tile.negative, jnp.exp(distance), 0).sum(1),
            jnp.maximum(state.top, others.max(1)),
            state.partner + jnp.where(tile.masked, logits, 0).sum(1),
            state.squares + jnp.square(self._residual(tile, distance, scalars)[0]).sum(1),
        )
        return after, ()

    def finish(
        self, scalars: Scalars, rows: PerRow, columns: PerRow, valid: Bool[Array, "rows"], total: Total
    ) -> tuple[Scalar, Metrics, Kept]:
        """The sum of both; keeps each row's log of its denominator and of its weights' sum."""
        state: _State = rows
        log_mass = jnp.log(state.mass + 2)  # the softmax of the weights counts the two zeros of the row's own record
        log_total = jnp.logaddexp(state.partner, state.negatives.log_sum(valid) - log_mass)
        log_total = jnp.logaddexp(log_total, jnp.log(LOG_EPSILON) + state.top)
        weighted = total(log_total - state.partner) / self.n_rows
        distance = total(state.squares) / self.n_rows**2
        loss = self.contrast_share * weighted + self.distance_share * distance
        metrics = {"loss_weighted": weighted, "loss_distance": distance}
        return loss, metrics, ((log_total, log_mass), (), jnp.ones((), loss.dtype))

    def gradient(self, tile: Tile, scalars: Scalars, rows: PerRow, columns: PerRow) -> tuple[PerPair, dict[str, Row]]:
        """By each cosine, and by the least and the largest of them; the shift by the largest logit is a constant."""
        log_total, log_mass = rows
        distance, logits = self._distance(tile), tile.cosine / self.temperature - log_total[:, None]
        contrast = jnp.where(tile.negative, jnp.exp(logits + distance - log_mass[:, None]), 0)
        contrast += jnp.where(tile.masked, jnp.exp(logits) - 1, 0)
        residual, scaled, slope = self._residual(tile, distance, scalars)
        residual *= 2 * self.distance_share / self.n_rows**2 * slope
        by_cosine = self.contrast_share / (self.n_rows * self.temperature) * contrast + residual
        return by_cosine, {"low": (residual * (scaled - 1)).sum(1), "high": -(residual * scaled).sum(1)}

    def _distance(self, tile: Tile) -> PerPair:
        (row_risk, row_known), (column_risk, column_known) = tile.rows.factors.T, tile.columns.factors.T
        difference = jnp.square(row_risk[:, None] - column_risk[None, :])
        mask = jnp.exp(-row_known[:, None] * column_known[None, :])
        return jnp.where(tile.negative, (self.alpha + (1 - self.alpha) * difference) * mask, 0).astype(
            tile.cosine.dtype
        )

    def _residual(self, tile: Tile, distance: PerPair, scalars: Scalars) -> tuple[PerPair, PerPair, Scalar]:
        """Scaled cosine less its target 1 - D where the pair counts; the scaled cosine; its slope by the cosine."""
        slope = 1 / (scalars["high"] - scalars["low"] + MINMAX_EPSILON)
        scaled = (tile.cosine - scalars["low"]) * slope
        return jnp.where(tile.allowed | tile.masked, scaled - (1 - distance), 0), scaled, slope
