"""CLEF (arXiv 2512.02180): contrast of two views of each ECG, guided by a clinical risk score.

An ECG of a patient whose risk is far from one's own is pushed away harder (L_w), and similarities shall follow the
distances of risk (L_d). The paper's equations are known from its reviews and from the released code, which differ in
two points: the mask of missing metadata (`missing_mask`), and whether the two terms are added or averaged
(`reduction`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgclip_jax.contracts import Batch, EcgOutput, Embeddings, RowKeys
from ecgclip_jax.objectives import clef_tiles
from ecgclip_jax.objectives.clef_reference import Guidance
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.objectives.extras import known_values
from ecgclip_jax.objectives.interfaces import HeadNeeds, Heads, Objective, TowerFunctions, TowerWidths, Tree, Views
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.objectives.two_views import N_VIEWS, embed_views, interleaved
from ecgclip_jax.spec.objectives import ClefSpec


@dataclass(frozen=True)
class Clef(Objective):
    """Two views of each ECG, without a projection head, as released."""

    spec: ClefSpec

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """None: the loss acts on the pooled output."""
        return {}

    def embed(
        self,
        towers: TowerFunctions,
        heads: Heads,
        params: Tree,
        stats: Tree,
        views: Views,
        batch: Batch,
        *,
        train: bool,
        keys: RowKeys | None,
        target: Tree | None = None,
    ) -> tuple[Embeddings, Tree]:
        """`view_1` and `view_2` [batch, dim], L2-normalised."""
        outputs, ecg_stats = embed_views(towers, params["ecg"], stats["ecg"], views, train=train, keys=keys)
        first, second = (self.ecg_embedding(heads, params["objective"], output) for output in outputs)
        return {"view_1": first, "view_2": second}, stats | {"ecg": ecg_stats}

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """The pooled output, L2-normalised."""
        return l2_normalised(ecg.pooled)

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """L_w and L_d with their weights, added or averaged.

        Raises:
            MissingColumnError: a batch without risk scores (or completeness, where `missing_mask` asks for it).
        """
        first, second = embeddings["view_1"], embeddings["view_2"]
        loss, metrics = clef_tiles.loss(self.spec, interleaved(first, second), self.guidance(batch), axes=mesh_axes)
        return loss, metrics | {
            "loss": loss,
            "positive_cosine": (first * second).sum(axis=1).mean(),
            "risk_known": batch.extras_present["risk"].mean(dtype=loss.dtype),
        }

    def guidance(self, batch: Batch) -> Guidance:
        """Risk and completeness of every row of the interleaved views.

        A missing risk is 0 in the released code, which has no mask of missing metadata. With the mask, as in the
        paper, what stands in for a missing risk is UNKNOWN; ours is the mean of the batch's known ones, so that it is
        the mask and not an invented extreme that decides. All missing is finite in both: every two patients are then
        equally far apart.
        """
        risk, known = known_values(batch, "risk", self.spec.kind)
        completeness = jnp.zeros_like(risk)
        if self.spec.missing_mask:
            risk = jnp.where(known, risk, risk.sum() / jnp.maximum(known.sum(), 1))
            completeness, _ = known_values(batch, "risk_completeness", self.spec.kind)
        return Guidance(jnp.repeat(risk, N_VIEWS), jnp.repeat(completeness, N_VIEWS))
