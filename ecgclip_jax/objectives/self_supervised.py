"""Baselines that learn from ECGs alone: SimCLR, BYOL and a MoCo-v3 style contrast, on two views of each record.

CLEF compares with such baselines; what its released code has (no projector, temperature 0.07, BYOL's predictor of half
the width) are the defaults of the specifications where it says so. Here BYOL and MoCo keep no queue: MoCo-v3 (arXiv
2104.02057) contrasts within the batch, and CLEF's queue enqueued each batch twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgclip_jax.contracts import Batch, EcgOutput, Embeddings, RowKeys
from ecgclip_jax.objectives import tiled
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.objectives.interfaces import (
    HeadNeed,
    HeadNeeds,
    Heads,
    Objective,
    TowerFunctions,
    TowerWidths,
    Tree,
    Views,
)
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.objectives.two_views import N_VIEWS, embed_views, interleaved
from ecgclip_jax.spec.objectives import BYOLSpec, MoCoSpec, SimCLRSpec


@dataclass(frozen=True)
class SelfSupervised(Objective):
    """Two views through the tower and a projector, which is left behind after training."""

    spec: SimCLRSpec | BYOLSpec | MoCoSpec

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """The projector."""
        return {"projector": HeadNeed(self.spec.projector, towers.ecg_width, self._width(towers), True)}

    def _width(self, towers: TowerWidths) -> int:
        """Of what is compared: the tower's own where there is no projector."""
        return towers.ecg_width if self.spec.projector.kind == "none" else self.spec.projector_dim

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """The pooled output in front of the projector, L2-normalised."""
        return l2_normalised(ecg.pooled)

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
        """`view_1` and `view_2` [batch, dim]: what is compared of each view, L2-normalised."""
        outputs, ecg_stats = embed_views(towers, params["ecg"], stats["ecg"], views, train=train, keys=keys)
        return _numbered("view", outputs, heads, params["objective"], "projector"), stats | {"ecg": ecg_stats}


@dataclass(frozen=True)
class SimCLR(SelfSupervised):
    """NT-Xent (arXiv 2002.05709): each view finds the other among the views of all other records."""

    spec: SimCLRSpec

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Cross-entropy over the 2B views, mean over them.

        Every view as a row against every view as a column, the columns of a record exchanged: a row's positive is then
        on the diagonal, and the view itself is left out by its group, the record. Both directions are the same sum.
        Two draws of one record within a batch are no negatives of each other (ours).
        """
        first, second = embeddings["view_1"], embeddings["view_2"]
        groups = jnp.repeat(batch.record_row, N_VIEWS)[:, None]
        loss, metrics = tiled.infonce(
            interleaved(first, second),
            interleaved(second, first),
            jnp.asarray(1 / self.spec.temperature, jnp.float32),
            groups,
            jnp.ones(len(groups), bool),
            direction="mean",
            axes=mesh_axes,
        )
        return loss, _contrast_metrics(metrics) | {"loss": loss}


@dataclass(frozen=True)
class _WithTarget(SelfSupervised):
    """An online branch with a predictor, and a momentum branch without, which gets no gradient."""

    spec: BYOLSpec | MoCoSpec
    target_heads = ("projector",)

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """Projector and predictor."""
        width = self._width(towers)
        return super().heads(towers) | {"predictor": HeadNeed(self.spec.predictor, width, width, True)}

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
        """`prediction_1`, `prediction_2` of the online branch and `target_1`, `target_2`, [batch, dim], L2-normalised.

        Raises:
            ValueError: no momentum branch given.
        """
        if target is None:
            raise ValueError(f"objective {self.spec.kind!r} compares with a momentum branch and got none")
        online, ecg_stats = embed_views(towers, params["ecg"], stats["ecg"], views, train=train, keys=keys)
        slow, slow_stats = embed_views(towers, target["ecg"], stats["target"]["ecg"], views, train=train, keys=keys)
        predictions = _numbered("prediction", online, heads, params["objective"], "projector", "predictor")
        targets = _numbered("target", slow, heads, target["objective"], "projector")
        after = {"ecg": ecg_stats, "target": {"ecg": slow_stats}}
        return predictions | jax.lax.stop_gradient(targets), stats | after

    def momentum(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """The specified momentum, risen to 1 along a half cosine if `momentum_to_one` (BYOL, arXiv 2006.07733)."""
        if not self.spec.momentum_to_one:
            return jnp.full_like(progress, self.spec.momentum)
        risen: Array = 1 - (1 - self.spec.momentum) * (jnp.cos(jnp.pi * progress) + 1) / 2
        return risen


@dataclass(frozen=True)
class BYOL(_WithTarget):
    """Each view's prediction meets the other view's target; there are no negatives (arXiv 2006.07733)."""

    spec: BYOLSpec

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """2 - 2 cosine of prediction and target, summed over both directions, mean over records."""
        first, second = (
            (embeddings[f"prediction_{i}"] * embeddings[f"target_{j}"]).sum(axis=1).mean() for i, j in ((1, 2), (2, 1))
        )
        loss = 4 - 2 * (first + second)
        return loss, {"loss": loss, "positive_cosine": (first + second) / 2}


@dataclass(frozen=True)
class MoCo(_WithTarget):
    """Each view's prediction finds the other view's target among the targets of the batch (MoCo-v3)."""

    spec: MoCoSpec

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """2 temperature x cross-entropy of queries over keys, summed over both directions (MoCo-v3, algorithm 1)."""
        no_groups, valid = jnp.zeros((len(batch.record_row), 0), jnp.int32), jnp.ones(len(batch.record_row), bool)
        (first, metrics), (second, _) = (
            tiled.infonce(
                embeddings[f"prediction_{i}"],
                embeddings[f"target_{j}"],
                jnp.asarray(1 / self.spec.temperature, jnp.float32),
                no_groups,
                valid,
                direction="rows",
                axes=mesh_axes,
            )
            for i, j in ((1, 2), (2, 1))
        )
        loss = 2 * self.spec.temperature * (first + second)
        return loss, _contrast_metrics(metrics) | {"loss": loss}


def _numbered(name: str, outputs: tuple[EcgOutput, EcgOutput], heads: Heads, params: Tree, *through: str) -> Embeddings:
    """The pooled output of each view through heads one after the other, L2-normalised, as `name_1` and `name_2`."""
    embeddings = {}
    for number, output in enumerate(outputs, start=1):
        x = output.pooled
        for head in through:
            x = heads[head].apply(params[head], x)
        embeddings[f"{name}_{number}"] = l2_normalised(x)
    return embeddings


def _contrast_metrics(metrics: Metrics) -> Metrics:
    """Of a contrast of views, where the two sides are alike."""
    return {
        "recall_at_1": metrics["recall_at_1_ecg_to_text"],
        "positive_cosine": metrics["positive_cosine"],
        "negative_cosine": metrics["negative_cosine"],
    }
