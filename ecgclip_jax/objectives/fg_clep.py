"""FG-CLEP (arXiv 2505.11939): ECGs against the single statements (tags) of their reports.

Three ideas, each a switch: targets from the similarity of tags, so that two ECGs with like statements are no enemies;
a term that pulls the similarity of ECG and tag towards that of tag and tag; an ECG embedding per tag, by attention over
the ECG's patches. All off it is SigLIP over tags. The paper's equations are not public; what stands here is the group's
later code (FOCAL) for the first, a third party's reading for the second, and ours for the third
(`models.tag_attention`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgclip_jax.contracts import Batch, EcgOutput, Embeddings, RowKeys, TextOutput
from ecgclip_jax.objectives import tiled
from ecgclip_jax.objectives.contrastive import ContrastiveObjective, Pairs, l2_normalised, per_ecg, scale_of
from ecgclip_jax.objectives.interfaces import (
    HeadNeeds,
    Heads,
    TagAttentionFunctions,
    TagAttentionNeed,
    TowerWidths,
    Tree,
)
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.spec.objectives import FgClepSpec


@dataclass(frozen=True)
class FgClep(ContrastiveObjective):
    """Sigmoid contrast over all tags of the global batch."""

    spec: FgClepSpec

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """With tag attention, that layer stands in for the head of the pooled ECG."""
        needs = super().heads(towers)
        if not self.spec.tag_attention:
            return needs
        spec = self.spec
        attention = TagAttentionNeed(towers.feature_width, spec.embedding_dim, spec.attention_heads)
        return {"tag_attention": attention, "text_head": needs["text_head"]}

    def initial_scalars(self) -> Tree:
        """`log_scale` and `logit_bias`, each if it is learned."""
        learned: Tree = {}
        if self.spec.learn_scale:
            learned["log_scale"] = jnp.asarray(math.log(self.spec.scale), jnp.float32)
        if self.spec.learn_bias:
            learned["logit_bias"] = jnp.asarray(self.spec.bias, jnp.float32)
        return learned

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """An ECG without a tag: the mean of its patches, as in FOCAL's zero-shot code; without tag attention its
        pooled output through the head."""
        if not self.spec.tag_attention:
            return super().ecg_embedding(heads, params, ecg)
        patches = heads["tag_attention"].apply(params["tag_attention"], _patches(ecg))
        return l2_normalised(patches.mean(axis=1))

    def extra_embeddings(
        self,
        heads: Heads,
        params: Tree,
        ecg: EcgOutput,
        text: TextOutput,
        embeddings: Embeddings,
        batch: Batch,
        train: bool,
        keys: RowKeys | None,
    ) -> Embeddings:
        """With tag attention `ecg` becomes [batch, k, dim]: each ECG as each of its tags sees it.

        `tag_similarity` [batch, k, width]: the text tower's output, where it decides how alike tags are.
        """
        extra: Embeddings = {}
        if self.spec.similarity_of == "tower":
            extra["tag_similarity"] = per_ecg(jax.lax.stop_gradient(text.pooled), batch)
        if not self.spec.tag_attention:
            return extra
        attention = heads["tag_attention"]
        if not isinstance(attention, TagAttentionFunctions):
            raise TypeError("the head 'tag_attention' must be a TagAttention")
        attended = attention.attend(params["tag_attention"], _patches(ecg), embeddings["text"])
        return extra | {"ecg": l2_normalised(attended)}

    def spares_own_texts(self) -> bool:
        """Soft targets know how alike two tags of one ECG are, so no pair is left out (FOCAL)."""
        return not self.spec.soft_targets

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Binary cross-entropy plus `l1_weight` times the false-negative term, each the mean over all pairs."""
        scale = scale_of(params, self.spec.scale)
        bias = params.get("logit_bias", jnp.asarray(self.spec.bias, jnp.float32))
        pairs = self.pairs(embeddings, batch)
        factors = jax.lax.stop_gradient(self._similarity_factors(embeddings, pairs))
        sigmoid, metrics = tiled.sigmoid(
            pairs.ecg,
            pairs.text,
            scale,
            bias,
            pairs.groups,
            pairs.valid,
            factors=factors if self.spec.soft_targets else None,
            reduction="pairs",
            axes=mesh_axes,
        )
        metrics = metrics | {"scale": scale, "bias": bias}
        if self.spec.l1_weight == 0:
            return sigmoid, metrics | {"loss": sigmoid}
        distance = tiled.l1_alignment(pairs.ecg, pairs.text, factors, pairs.valid, reduction="pairs", axes=mesh_axes)
        loss = sigmoid + self.spec.l1_weight * distance
        return loss, metrics | {"loss": loss, "loss_sigmoid": sigmoid, "loss_false_negatives": distance}

    def _similarity_factors(self, embeddings: Embeddings, pairs: Pairs) -> Float[Array, "pairs width"]:
        """Unit vectors whose products say how alike tags are.

        The tower's outputs are centred on their mean over the batch's tags (ours): texts have most of their direction
        in common, and uncentred cosines would call every two of them alike.
        """
        if "tag_similarity" not in embeddings:
            return pairs.text
        tower = embeddings["tag_similarity"].reshape(len(pairs.text), -1)
        counts = pairs.valid[:, None]
        mean = jnp.where(counts, tower, 0).sum(axis=0) / jnp.maximum(counts.sum(), 1)
        return l2_normalised(tower - mean)


def _patches(ecg: EcgOutput) -> Float[Array, "batch steps width"]:
    if ecg.tokens is None:
        raise ValueError("objective.tag_attention needs an ECG encoder that gives its map over time")
    return ecg.tokens
