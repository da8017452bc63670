"""ECG-report contrast as an objective: which outputs of the towers it takes, its parameters, and its loss.

The two objectives differ in their loss and in the scalars they learn; what they do with the towers is the same.
A scalar that is fixed by the experiment is no parameter. Where an ECG has several texts, each is a pair of its own and
the others of the same ECG are no negatives of it (ours).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.contracts import (
    Batch,
    EcgOutput,
    Embeddings,
    PackedTexts,
    RowKeys,
    TextOutput,
    TextTokens,
    TextVectors,
)
from ecgclip_jax.objectives import tiled
from ecgclip_jax.objectives.interfaces import (
    HeadNeed,
    HeadNeeds,
    Heads,
    Objective,
    PackingTowers,
    TowerFunctions,
    TowerWidths,
    Tree,
    Views,
)
from ecgclip_jax.objectives.reference import Metrics, Scalar, at_least_float32
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import FgClepSpec, InfoNCESpec, SigmoidSpec

UNI_MODAL_VIEWS = ("view_1", "view_2")
_ECG_STREAM, _TEXT_STREAM, _VIEW_STREAM = range(3)
"""Which of a record's random streams a part of the objective draws from."""


class Pairs(NamedTuple):
    """ECGs and texts of a batch as N = B·K pairs: row i of `ecg` belongs to row i of `text`."""

    ecg: Float[Array, "pairs dim"]
    text: Float[Array, "pairs dim"]
    groups: Int[Array, "pairs group"]
    valid: Bool[Array, "pairs"]


@dataclass(frozen=True)
class ContrastiveObjective(Objective):
    """Pairs of an ECG and a text in a shared space."""

    spec: InfoNCESpec | SigmoidSpec | FgClepSpec

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """A projection of each tower into the shared space."""
        dim = self.spec.embedding_dim
        return {
            "ecg_head": HeadNeed(self.spec.ecg_head, towers.ecg_width, dim, True),
            "text_head": HeadNeed(self.spec.text_head, towers.text_width, dim, True),
        }

    def constrain(self, params: Tree) -> Tree:
        """The learned scale at most `max_scale`, as CLIP clamps it."""
        if "log_scale" not in params:
            return params
        return params | {"log_scale": jnp.minimum(params["log_scale"], math.log(self.spec.max_scale))}

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
        """`ecg` [batch, dim] and `text` [batch, k, dim], L2-normalised, and the running statistics after the batch.

        Raises:
            ValueError: a batch with texts as table rows.
        """
        (view,) = views
        ecg, ecg_stats = towers.ecg(params["ecg"], stats["ecg"], view, train=train, keys=_fold(keys, _ECG_STREAM))
        text = self._text(towers, params["text"], batch, train, _fold(keys, _TEXT_STREAM))
        embeddings = {
            "ecg": self.ecg_embedding(heads, params["objective"], ecg),
            "text": per_ecg(self.text_embedding(heads, params["objective"], text), batch),
        }
        extra = self.extra_embeddings(heads, params["objective"], ecg, text, embeddings, batch, train, keys)
        return embeddings | extra, stats | {"ecg": ecg_stats}

    def _text(
        self, towers: TowerFunctions, params: Tree, batch: Batch, train: bool, keys: RowKeys | None
    ) -> TextOutput:
        """Every text by itself: the K texts of an ECG are rows of the text tower, or of its cached outputs."""
        if isinstance(batch.texts, TextVectors):
            return TextOutput(pooled=batch.texts.pooled.reshape(-1, batch.texts.pooled.shape[-1]))
        if isinstance(batch.texts, PackedTexts):
            if not isinstance(towers, PackingTowers):
                raise TypeError("packed texts need towers that can read them (packed_text)")
            return towers.packed_text(params, batch.texts)
        if not isinstance(batch.texts, TextTokens):
            raise ValueError("this objective runs its text tower on tokens; the batch carries rows of a text table")
        ids, mask = batch.texts.ids, batch.texts.mask
        _, k, tokens = ids.shape
        if keys is not None:
            keys = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(k)))(keys).reshape(-1)
        return towers.text(params, ids.reshape(-1, tokens), mask.reshape(-1, tokens), train=train, keys=keys)

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """Embedding of ECGs in the shared space, L2-normalised, float32."""
        return l2_normalised(heads["ecg_head"].apply(params["ecg_head"], ecg.pooled))

    def text_embedding(self, heads: Heads, params: Tree, text: TextOutput) -> Float[Array, "texts dim"]:
        """Embedding of texts in the shared space, L2-normalised, float32."""
        return l2_normalised(heads["text_head"].apply(params["text_head"], text.pooled))

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
        """What the loss needs beside `ecg` and `text`; nothing by default."""
        return {}

    def spares_own_texts(self) -> bool:
        """Whether the other texts of an ECG are no negatives of it."""
        return True

    def pairs(self, embeddings: Embeddings, batch: Batch) -> Pairs:
        """Every text with its ECG, and the group ids whose equality makes two of them no negatives.

        A column of `groups` for each mask that is on, and one for the record where it has several texts.
        `embeddings["ecg"]` may have a row for each text of an ECG.
        """
        rows, k, dim = embeddings["text"].shape
        spare_own = k > 1 and self.spares_own_texts()
        per_record = [batch.patient_group] * self.spec.mask_same_patient + [batch.record_row] * spare_own
        columns = [jnp.repeat(column, k) for column in per_record]
        columns += [batch.text_group.reshape(-1)] * self.spec.mask_same_text
        groups = jnp.stack(columns, axis=1) if columns else jnp.zeros((rows * k, 0), jnp.int32)
        ecg = jnp.broadcast_to(embeddings["ecg"].reshape(rows, -1, dim), (rows, k, dim)).reshape(-1, dim)
        return Pairs(ecg, embeddings["text"].reshape(-1, dim), groups, batch.text_valid.reshape(-1))


@dataclass(frozen=True)
class InfoNCE(ContrastiveObjective):
    """Softmax contrast (CLIP, MERL), with MERL's uni-modal alignment where it has weight."""

    spec: InfoNCESpec

    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """Also MERL's two bias-free linear views of the trunk, if they count."""
        needs = super().heads(towers)
        if self.spec.uni_modal_weight > 0:
            view = HeadNeed(HeadSpec(kind="linear"), towers.ecg_width, towers.ecg_width, False)
            needs |= dict.fromkeys(UNI_MODAL_VIEWS, view)
        return needs

    def initial_scalars(self) -> Tree:
        """`log_scale` = log(1 / temperature) if it is learned."""
        if not self.spec.learn_temperature:
            return {}
        return {"log_scale": jnp.asarray(-math.log(self.spec.temperature), jnp.float32)}

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
        """MERL's views: two linear maps of the mean over time, each with dropout of its own, L2-normalised."""
        if self.spec.uni_modal_weight == 0:
            return {}
        if ecg.pooled_mean is None:
            raise ValueError("objective.uni_modal_weight needs an ECG encoder that gives the mean of its map over time")
        rate = self.spec.uni_modal_dropout if train else 0.0
        return {
            name: l2_normalised(
                dropout(heads[name].apply(params[name], ecg.pooled_mean), rate, _fold(keys, _VIEW_STREAM + i))
            )
            for i, name in enumerate(UNI_MODAL_VIEWS)
        }

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """InfoNCE of ECG and text plus `uni_modal_weight` times InfoNCE of the two views.

        Soft targets are the similarity of the texts' own embeddings, without gradient (ours).
        The views keep the experiment's fixed temperature also where the other one is learned; only same-patient
        masking applies to them (ours: the papers have no masks).
        """
        scale = scale_of(params, 1 / self.spec.temperature)
        pairs = self.pairs(embeddings, batch)
        loss, metrics = tiled.infonce(
            pairs.ecg,
            pairs.text,
            scale,
            pairs.groups,
            pairs.valid,
            direction=self.spec.direction,
            factors=pairs.text,
            soft_target_weight=self.spec.soft_target_weight,
            soft_target_scale=self.spec.soft_target_scale,
            axes=mesh_axes,
        )
        metrics = metrics | {"scale": scale}
        if self.spec.uni_modal_weight == 0:
            return loss, metrics | {"loss": loss}
        patients = batch.patient_group[:, None][:, : int(self.spec.mask_same_patient)]
        fixed = jnp.asarray(1 / self.spec.temperature, jnp.float32)
        first, second = (embeddings[name] for name in UNI_MODAL_VIEWS)
        everyone = jnp.ones(len(first), bool)
        uni_modal, _ = tiled.infonce(
            first, second, fixed, patients, everyone, direction=self.spec.direction, axes=mesh_axes
        )
        total = loss + self.spec.uni_modal_weight * uni_modal
        return total, metrics | {"loss": total, "loss_cross_modal": loss, "loss_uni_modal": uni_modal}


@dataclass(frozen=True)
class Sigmoid(ContrastiveObjective):
    """Pairwise sigmoid contrast (SigLIP)."""

    spec: SigmoidSpec

    def initial_scalars(self) -> Tree:
        """`log_scale` and `bias`, each if it is learned."""
        learned: Tree = {}
        if self.spec.learn_scale:
            learned["log_scale"] = jnp.asarray(math.log(self.spec.scale), jnp.float32)
        if self.spec.learn_bias:
            learned["logit_bias"] = jnp.asarray(self.spec.bias, jnp.float32)
        return learned

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Sum over pairs, mean over rows."""
        scale = scale_of(params, self.spec.scale)
        bias = params.get("logit_bias", jnp.asarray(self.spec.bias, jnp.float32))
        pairs = self.pairs(embeddings, batch)
        loss, metrics = tiled.sigmoid(pairs.ecg, pairs.text, scale, bias, pairs.groups, pairs.valid, axes=mesh_axes)
        return loss, metrics | {"loss": loss, "scale": scale, "bias": bias}


def l2_normalised(x: Float[Array, "*rows dim"], epsilon: float = 1e-12) -> Float[Array, "*rows dim"]:
    """Rows of length 1 in float32 or wider; a row of zeros stays zero and has a gradient of zero.

    The bound on the squared length is PyTorch's `normalize` (length at least 1e-12), kept inside float32's range.
    """
    x = at_least_float32(x)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), epsilon**2))


def dropout(x: Float[Array, "batch dim"], rate: float, keys: RowKeys | None) -> Float[Array, "batch dim"]:
    """Inverted dropout with a mask drawn from each row's own key; rate 0 needs no keys."""
    if rate == 0:
        return x
    if keys is None:
        raise ValueError("dropout needs a random key per record; pass keys= or train=False")
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def per_ecg(x: Float[Array, "texts dim"], batch: Batch) -> Float[Array, "batch k dim"]:
    """Rows of texts as the K texts of each ECG."""
    return x.reshape(*batch.text_valid.shape, -1)


def _fold(keys: RowKeys | None, stream: int) -> RowKeys | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)


def scale_of(params: Tree, fixed: float) -> Scalar:
    """The learned scale of the logits, or the experiment's fixed one."""
    return jnp.exp(params["log_scale"]) if "log_scale" in params else jnp.asarray(fixed, jnp.float32)
