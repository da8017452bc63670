"""ECG-report contrast as an objective: which outputs of the towers it takes, its parameters, and its loss.

The two objectives differ in their loss and in the scalars they learn; what they do with the towers is the same.
A scalar that is fixed by the experiment is no parameter.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ecgclip_jax.contracts import Batch, EcgInput, EcgOutput, Embeddings, RowKeys, TextOutput, TextTokens
from ecgclip_jax.objectives import reference, sharded
from ecgclip_jax.objectives.interfaces import HeadNeed, Heads, TowerFunctions, TowerWidths, Tree
from ecgclip_jax.objectives.reference import Metrics, Scalar, at_least_float32
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import InfoNCESpec, SigmoidSpec

UNI_MODAL_VIEWS = ("view_1", "view_2")
_ECG_STREAM, _TEXT_STREAM, _VIEW_STREAM = range(3)
"""Which of a record's random streams a part of the objective draws from."""


@dataclass(frozen=True)
class ContrastiveObjective(ABC):
    """Pairs of one ECG and one report. Its parameters live under `params["objective"]`."""

    spec: InfoNCESpec | SigmoidSpec

    def heads(self, towers: TowerWidths) -> dict[str, HeadNeed]:
        """The projections this objective needs, by name."""
        dim = self.spec.embedding_dim
        return {
            "ecg_head": HeadNeed(self.spec.ecg_head, towers.ecg_width, dim, True),
            "text_head": HeadNeed(self.spec.text_head, towers.text_width, dim, True),
        }

    def init(self, key: Key[Array, ""], heads: Heads) -> Tree:
        """Fresh `params["objective"]`: one tree per head, and the scalars that are learned."""
        keys = jax.random.split(key, len(heads))
        params: Tree = {name: head.init(k) for (name, head), k in zip(heads.items(), keys, strict=True)}
        return params | self.initial_scalars()

    @abstractmethod
    def initial_scalars(self) -> Tree:
        """The learned scalars at the start."""

    def constrain(self, params: Tree) -> Tree:
        """The parameters inside their bounds; called after every update, as CLIP clamps its scale."""
        if "log_scale" not in params:
            return params
        return params | {"log_scale": jnp.minimum(params["log_scale"], math.log(self.spec.max_scale))}

    def embed(
        self,
        towers: TowerFunctions,
        heads: Heads,
        params: Tree,
        stats: Tree,
        ecg_input: EcgInput,
        batch: Batch,
        *,
        train: bool,
        keys: RowKeys | None,
    ) -> tuple[Embeddings, Tree]:
        """`ecg` and `text` [batch, dim], L2-normalised, and the running statistics after the batch.

        `keys` draw every dropout and are needed when `train`.

        Raises:
            ValueError: a batch with several texts per ECG, or with texts as table rows.
        """
        ids, mask = _single_text(batch)
        ecg, ecg_stats = towers.ecg(params["ecg"], stats["ecg"], ecg_input, train=train, keys=_fold(keys, _ECG_STREAM))
        text = towers.text(params["text"], ids, mask, train=train, keys=_fold(keys, _TEXT_STREAM))
        embeddings = {
            "ecg": self.ecg_embedding(heads, params["objective"], ecg),
            "text": self.text_embedding(heads, params["objective"], text),
        }
        return embeddings | self.extra_embeddings(heads, params["objective"], ecg, train, keys), stats | {
            "ecg": ecg_stats
        }

    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """Embedding of ECGs in the shared space, L2-normalised, float32."""
        return l2_normalised(heads["ecg_head"].apply(params["ecg_head"], ecg.pooled))

    def text_embedding(self, heads: Heads, params: Tree, text: TextOutput) -> Float[Array, "batch dim"]:
        """Embedding of texts in the shared space, L2-normalised, float32."""
        return l2_normalised(heads["text_head"].apply(params["text_head"], text.pooled))

    def extra_embeddings(
        self, heads: Heads, params: Tree, ecg: EcgOutput, train: bool, keys: RowKeys | None
    ) -> Embeddings:
        """What the loss needs beside `ecg` and `text`; nothing by default."""
        return {}

    @abstractmethod
    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Loss over the global batch and its metrics, float32.

        `mesh_axes` are the axes of the context's mesh over which the batch is split; without any, one device
        computes the global view.
        """

    def groups(self, batch: Batch) -> Int[Array, "batch group"]:
        """The group ids whose equality makes a pair no negative; a column for each mask that is on."""
        columns = [batch.patient_group] * self.spec.mask_same_patient + [batch.text_group] * self.spec.mask_same_text
        return jnp.stack(columns, axis=1) if columns else jnp.zeros((batch.patient_group.shape[0], 0), jnp.int32)


@dataclass(frozen=True)
class InfoNCE(ContrastiveObjective):
    """Softmax contrast (CLIP, MERL), with MERL's uni-modal alignment where it has weight."""

    spec: InfoNCESpec

    def heads(self, towers: TowerWidths) -> dict[str, HeadNeed]:
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
        self, heads: Heads, params: Tree, ecg: EcgOutput, train: bool, keys: RowKeys | None
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

        The views keep the experiment's fixed temperature also where the other one is learned; only same-patient
        masking applies to them (ours: the papers have no masks).
        """
        scale = _scale(params, 1 / self.spec.temperature)
        valid = batch.text_valid[:, 0]
        loss, metrics = self._infonce(
            embeddings["ecg"], embeddings["text"], scale, self.groups(batch), valid, mesh_axes
        )
        metrics = metrics | {"scale": scale}
        if self.spec.uni_modal_weight == 0:
            return loss, metrics | {"loss": loss}
        patients = batch.patient_group[:, None][:, : int(self.spec.mask_same_patient)]
        fixed = jnp.asarray(1 / self.spec.temperature, jnp.float32)
        first, second = (embeddings[name] for name in UNI_MODAL_VIEWS)
        uni_modal, _ = self._infonce(first, second, fixed, patients, jnp.ones_like(valid), mesh_axes)
        total = loss + self.spec.uni_modal_weight * uni_modal
        return total, metrics | {"loss": total, "loss_cross_modal": loss, "loss_uni_modal": uni_modal}

    def _infonce(
        self,
        first: Float[Array, "batch dim"],
        second: Float[Array, "batch dim"],
        scale: Scalar,
        groups: Int[Array, "batch group"],
        valid: Bool[Array, "batch"],
        mesh_axes: tuple[str, ...],
    ) -> tuple[Scalar, Metrics]:
        arguments, direction = (first, second, scale, groups, valid), self.spec.direction
        if mesh_axes:
            return sharded.infonce(*arguments, direction=direction, axes=mesh_axes)
        return reference.infonce(*arguments, direction=direction)


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
        scale = _scale(params, self.spec.scale)
        bias = params.get("logit_bias", jnp.asarray(self.spec.bias, jnp.float32))
        arguments = (
            embeddings["ecg"],
            embeddings["text"],
            scale,
            bias,
            self.groups(batch),
            batch.text_valid[:, 0],
        )
        loss, metrics = sharded.sigmoid(*arguments, axes=mesh_axes) if mesh_axes else reference.sigmoid(*arguments)
        return loss, metrics | {"loss": loss, "scale": scale, "bias": bias}


def l2_normalised(x: Float[Array, "batch dim"], epsilon: float = 1e-12) -> Float[Array, "batch dim"]:
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


def _fold(keys: RowKeys | None, stream: int) -> RowKeys | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)


def _scale(params: Tree, fixed: float) -> Scalar:
    return jnp.exp(params["log_scale"]) if "log_scale" in params else jnp.asarray(fixed, jnp.float32)


def _single_text(batch: Batch) -> tuple[Int[Array, "batch tokens"], Bool[Array, "batch tokens"]]:
    texts = batch.texts
    if not isinstance(texts, TextTokens):
        raise ValueError("this objective runs its text tower on tokens; the batch carries rows of a text table")
    if texts.ids.shape[1] != 1:
        raise ValueError(f"this objective takes one text per ECG; the batch carries {texts.ids.shape[1]}")
    return texts.ids[:, 0], texts.mask[:, 0]
