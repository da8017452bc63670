"""The losses of `reference` for batches of any size: same values, same gradients, no B x B matrix (see `ring`).

The functions take the names of the mesh axes over which the batch is split and find the mesh in the context
(`jax.set_mesh`); without axes one device computes all tiles. Memory grows with B, not with its square. All raise
`UserError` for embeddings that do not pair up, a batch that does not divide the mesh, or an axis that the mesh lacks.
"""

from __future__ import annotations

from typing import Final

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.objectives.pair_losses import InfoNCE, L1Alignment, Sigmoid
from ecgclip_jax.objectives.reference import Direction, Metrics, Reduction, Scalar
from ecgclip_jax.objectives.ring import Axes, Given, Layout, pair_loss
from ecgclip_jax.spec.errors import UserError

TILE: Final = 1024
"""Largest side of a tile."""


def infonce(
    ecg: Float[Array, "ecgs dim"],
    text: Float[Array, "texts text_dim"],
    scale: Scalar,
    groups: Int[Array, "ecgs group"],
    valid: Bool[Array, "ecgs"],
    *,
    direction: Direction,
    factors: Float[Array, "ecgs factor"] | None = None,
    soft_target_weight: float = 0.0,
    soft_target_scale: float = 10.0,
    axes: Axes = (),
    tile: int = TILE,
    matmul_dtype: DTypeLike | None = None,
) -> tuple[Scalar, Metrics]:
    """`reference.infonce` in tiles, for a batch split over `axes`; `Layout` explains `tile` and `matmul_dtype`."""
    layout = _checked(ecg, text, Layout(axes, tile, matmul_dtype))
    soft_weight = 0.0 if factors is None else soft_target_weight
    given = _given(factors if soft_weight else None, groups, valid)
    row_weight, column_weight = {"sum": (1.0, 1.0), "mean": (0.5, 0.5), "rows": (1.0, 0.0)}[direction]
    loss = InfoNCE(row_weight, column_weight, soft_weight, soft_target_scale)
    return pair_loss(loss, layout, ecg, text, {"scale": scale}, given)


def sigmoid(
    ecg: Float[Array, "ecgs dim"],
    text: Float[Array, "texts text_dim"],
    scale: Scalar,
    bias: Scalar,
    groups: Int[Array, "ecgs group"],
    valid: Bool[Array, "ecgs"],
    *,
    factors: Float[Array, "ecgs factor"] | None = None,
    reduction: Reduction = "rows",
    axes: Axes = (),
    tile: int = TILE,
    matmul_dtype: DTypeLike | None = None,
) -> tuple[Scalar, Metrics]:
    """`reference.sigmoid` in tiles, for a batch split over `axes`; `Layout` explains `tile` and `matmul_dtype`."""
    layout = _checked(ecg, text, Layout(axes, tile, matmul_dtype))
    loss = Sigmoid(factors is not None, reduction)
    return pair_loss(loss, layout, ecg, text, {"scale": scale, "bias": bias}, _given(factors, groups, valid))


def l1_alignment(
    ecg: Float[Array, "ecgs dim"],
    text: Float[Array, "texts text_dim"],
    factors: Float[Array, "ecgs factor"],
    valid: Bool[Array, "ecgs"],
    *,
    reduction: Reduction = "rows",
    axes: Axes = (),
    tile: int = TILE,
    matmul_dtype: DTypeLike | None = None,
) -> Scalar:
    """`reference.l1_alignment` in tiles, for a batch split over `axes`; `Layout` explains `tile`, `matmul_dtype`."""
    layout = _checked(ecg, text, Layout(axes, tile, matmul_dtype))
    value, _ = pair_loss(L1Alignment(reduction), layout, ecg, text, {}, _given(factors, None, valid))
    return value


def _given(
    factors: Float[Array, "batch factor"] | None, groups: Int[Array, "batch group"] | None, valid: Bool[Array, "batch"]
) -> Given:
    """Absent factors and groups as arrays without columns."""
    n_rows = valid.shape[0]
    return Given(
        jnp.zeros((n_rows, 0)) if factors is None else factors,
        jnp.zeros((n_rows, 0), jnp.int32) if groups is None else groups,
        valid,
    )


def _checked(ecg: Float[Array, "ecgs dim"], text: Float[Array, "texts text_dim"], layout: Layout) -> Layout:
    if ecg.shape != text.shape:
        raise UserError(
            f"the loss expects as many texts as ECGs, in one space, and found ECG embeddings {ecg.shape} and text "
            f"embeddings {text.shape}; repeat an ECG for each of its texts, and give both heads one width"
        )
    n_devices = layout.n_devices()
    if ecg.shape[0] % n_devices:
        raise UserError(
            f"the loss expects a batch that divides by the {n_devices} devices of the mesh axes "
            f"{', '.join(layout.axes)} and found {ecg.shape[0]} pairs; change data.batch_global or the mesh"
        )
    return layout
