"""What an objective is, and what it asks of towers and heads.

Objectives may not import models: towers and heads arrive as arguments. An objective makes embeddings of a batch and
takes a loss of them; between the two stands the global batch, so that a step may embed it in parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, Key

from ecgclip_jax.contracts import Batch, EcgInput, EcgOutput, Embeddings, PackedTexts, RowKeys, TextOutput
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import ObjectiveSpec

Tree = dict[str, Any]
Views = tuple[EcgInput, ...]
"""The inputs made of each record, `spec.views` of them."""


@runtime_checkable
class TowerWidths(Protocol):
    """Widths of the towers' outputs; `text_width` is 0 without a text tower."""

    ecg_width: int
    feature_width: int
    text_width: int


@runtime_checkable
class TowerFunctions(TowerWidths, Protocol):
    """Both towers as pure functions; `ecgclip_jax.models.build.Towers` is one."""

    def ecg(
        self, params: Tree, stats: Tree, ecg_input: EcgInput, *, train: bool, keys: RowKeys | None = None
    ) -> tuple[EcgOutput, Tree]:
        """Output of the ECG tower and its running statistics after the call."""
        ...

    def text(
        self,
        params: Tree,
        ids: Int[Array, "texts tokens"],
        mask: Bool[Array, "texts tokens"],
        *,
        train: bool,
        keys: RowKeys | None = None,
    ) -> TextOutput:
        """Output of the text tower."""
        ...


@runtime_checkable
class PackingTowers(TowerFunctions, Protocol):
    """Towers that also read texts which share rows."""

    def packed_text(self, params: Tree, texts: PackedTexts) -> TextOutput:
        """Output of the text tower, a row for each text."""
        ...


@runtime_checkable
class HeadFunctions(Protocol):
    """A projection as two pure functions; `ecgclip_jax.models.heads.Head` is one."""

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        ...

    def apply(self, params: Tree, x: Float[Array, "*rows width_in"]) -> Float[Array, "*rows width_out"]:
        """`x` projected."""
        ...


@runtime_checkable
class TagAttentionFunctions(HeadFunctions, Protocol):
    """A projection of patches that tags can attend to; `ecgclip_jax.models.tag_attention.TagAttention` is one."""

    def attend(
        self, params: Tree, tokens: Float[Array, "batch steps width_in"], tags: Float[Array, "batch k width_out"]
    ) -> Float[Array, "batch k width_out"]:
        """The projected patches of each ECG, averaged by the attention of each of its tags."""
        ...


class HeadNeed(NamedTuple):
    """A projection that an objective needs: `models.heads.Head(**need._asdict())`."""

    spec: HeadSpec
    width_in: int
    width_out: int
    bias: bool


class TagAttentionNeed(NamedTuple):
    """Attention of tags over patches that an objective needs: `models.tag_attention.TagAttention`'s arguments."""

    token_width: int
    dim: int
    attention_heads: int


Heads = dict[str, HeadFunctions]
HeadNeeds = dict[str, HeadNeed | TagAttentionNeed]


class Objective(ABC):
    """A training objective; its parameters live under `params["objective"]`, a tree per head and learned scalars."""

    spec: ObjectiveSpec
    target_heads: tuple[str, ...] = ()
    """Heads with a momentum copy, for an objective with `spec.has_target`."""

    @abstractmethod
    def heads(self, towers: TowerWidths) -> HeadNeeds:
        """The projections this objective needs, by name."""

    def init(self, key: Key[Array, ""], heads: Heads) -> Tree:
        """Fresh `params["objective"]`: one tree per head, and the scalars that are learned."""
        keys = jax.random.split(key, max(len(heads), 1))
        params: Tree = {name: head.init(k) for (name, head), k in zip(heads.items(), keys, strict=False)}
        return params | self.initial_scalars()

    def initial_scalars(self) -> Tree:
        """The learned scalars at the start; none by default."""
        return {}

    def constrain(self, params: Tree) -> Tree:
        """The parameters inside their bounds; called after every update."""
        return params

    @abstractmethod
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
        """Named arrays with leading axis B, all that the loss sees of the towers, and the running statistics after.

        `stats` and the result hold `"ecg"` and, with a momentum branch, `"target"` of the same form. `keys` draw every
        dropout and are needed when `train`. `target` is the momentum branch's parameters `{"ecg": …, "objective": …}`;
        no gradient flows into it. Rows depend on each other through BatchNorm alone.
        """

    @abstractmethod
    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Loss over the global batch and its metrics (with `loss`), float32; the order of the rows does not matter.

        `params` is `params["objective"]`; `batch.ecg_uv` and `batch.texts` may not be used. `mesh_axes` are the axes
        of the context's mesh over which the batch is split; without any, one device sees all of it.
        """

    @abstractmethod
    def ecg_embedding(self, heads: Heads, params: Tree, ecg: EcgOutput) -> Float[Array, "batch dim"]:
        """What stands for an ECG when the model is used, L2-normalised, float32; `params` is `params["objective"]`."""

    def text_embedding(self, heads: Heads, params: Tree, text: TextOutput) -> Float[Array, "texts dim"]:
        """What stands for a text when the model is used, in the space of `ecg_embedding`.

        Raises:
            ValueError: an objective that reads no text.
        """
        raise ValueError(f"a model trained with {self.spec.kind!r} has no text tower")

    def momentum(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """Weight of the momentum branch's old parameters at an update, `progress` in [0, 1] through the run."""
        raise ValueError(f"objective {self.spec.kind!r} has no momentum branch")
