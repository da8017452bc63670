"""What the objectives that compare two views of each ECG share: embedding the views, and stacking them as rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgclip_jax.contracts import EcgOutput, RowKeys
from ecgclip_jax.objectives.interfaces import TowerFunctions, Tree, Views

N_VIEWS = 2


def embed_views(
    towers: TowerFunctions, params: Tree, stats: Tree, views: Views, *, train: bool, keys: RowKeys | None
) -> tuple[tuple[EcgOutput, EcgOutput], Tree]:
    """The tower's output for each of two views, and the running statistics after both.

    `params` and `stats` are the ECG tower's own. Both views start from the same running statistics and the results are
    averaged: the views are BatchNorm groups of one batch, whose order does not matter.

    Raises:
        ValueError: another number of views.
    """
    if len(views) != N_VIEWS:
        raise ValueError(f"this objective compares {N_VIEWS} views of each ECG and got {len(views)}")
    outputs, after = zip(
        *(towers.ecg(params, stats, view, train=train, keys=_fold(keys, number)) for number, view in enumerate(views)),
        strict=True,
    )
    mean_stats: Tree = jax.tree.map(lambda first, second: (first + second) / 2, *after)
    return outputs, mean_stats


def interleaved(first: Float[Array, "batch dim"], second: Float[Array, "batch dim"]) -> Float[Array, "rows dim"]:
    """Both views as 2B rows, the two of a record side by side: on a mesh no row leaves its device."""
    return jnp.stack([first, second], axis=1).reshape(-1, first.shape[1])


def _fold(keys: RowKeys | None, stream: int) -> RowKeys | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)
