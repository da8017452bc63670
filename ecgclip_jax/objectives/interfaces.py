"""What an objective asks of towers and heads: objectives may not import models, so these arrive as arguments."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, Key

from ecgclip_jax.contracts import EcgInput, EcgOutput, RowKeys, TextOutput
from ecgclip_jax.spec.encoders import HeadSpec

Tree = dict[str, Any]


@runtime_checkable
class TowerWidths(Protocol):
    """Widths of the pooled outputs of both towers."""

    ecg_width: int
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
class HeadFunctions(Protocol):
    """A projection as two pure functions; `ecgclip_jax.models.heads.Head` is one."""

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        ...

    def apply(self, params: Tree, x: Float[Array, "batch width_in"]) -> Float[Array, "batch width_out"]:
        """`x` projected."""
        ...


class HeadNeed(NamedTuple):
    """A projection that an objective needs: `models.heads.Head(**need._asdict())`."""

    spec: HeadSpec
    width_in: int
    width_out: int
    bias: bool


Heads = dict[str, HeadFunctions]
