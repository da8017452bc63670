"""Learning from labels and measurements: a baseline for pre-training, and the loss of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ecgclip_jax.contracts import Batch, EcgOutput, Embeddings, RowKeys
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.objectives.extras import known_values
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
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import SupervisedSpec, SurvivalSpec


@dataclass(frozen=True)
class FromFeatures(Objective):
    """Linear heads on the trunk's mean over time; what they predict is what the loss sees."""

    spec: SupervisedSpec | SurvivalSpec

    def outputs(self) -> dict[str, int]:
        """Name and width of each head."""
        raise NotImplementedError

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """A linear head per output."""
        linear = HeadSpec(kind="linear")
        return {name: HeadNeed(linear, towers.feature_width, width, True) for name, width in self.outputs().items()}

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
        """The output of every head, [batch, width], float32."""
        (view,) = views
        ecg, ecg_stats = towers.ecg(params["ecg"], stats["ecg"], view, train=train, keys=keys)
        predicted = {name: head.apply(params["objective"][name], ecg.features) for name, head in heads.items()}
        return predicted, stats | {"ecg": ecg_stats}

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """The features that the heads read, L2-normalised."""
        return l2_normalised(ecg.features)


@dataclass(frozen=True)
class Supervised(FromFeatures):
    """Labels by logits, measurements in standard deviations from the training mean."""

    spec: SupervisedSpec

    def outputs(self) -> dict[str, int]:
        """`labels` and `measurements`, each if there are any."""
        widths = {"labels": len(self.spec.labels), "measurements": len(self.spec.measurements)}
        return {name: width for name, width in widths.items() if width}

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Binary cross-entropy plus `regression_weight` times squared error, each the mean over all known values.

        Raises:
            MissingColumnError: a batch without the labels or measurements.
        """
        metrics: Metrics = {}
        if self.spec.labels:
            truth, known = known_values(batch, "labels", self.spec.kind)
            logits = embeddings["labels"]
            metrics["loss_labels"] = mean_known(jax.nn.softplus(logits) - truth * logits, known)
        if self.spec.measurements:
            truth, known = known_values(batch, "measurements", self.spec.kind)
            metrics["loss_measurements"] = mean_known(jnp.square(embeddings["measurements"] - truth), known)
        zero = jnp.zeros((), jnp.float32)
        loss = metrics.get("loss_labels", zero)
        loss += self.spec.regression_weight * metrics.get("loss_measurements", zero)
        return loss, metrics | {"loss": loss}


def mean_known(values: Float[Array, "..."], known: Bool[Array, "..."]) -> Scalar:
    """Mean of the values that are known; zero where none is."""
    return jnp.where(known, values, 0).sum() / jnp.maximum(known.sum(), 1)
