"""The array contracts between rooms: what a batch is, what an encoder takes and returns. No logic lives here.

It stands on floor 0 beside `spec`, because data, signal, models and objectives must agree on these shapes without
importing each other.

The fields say what the arrays are on the device. They are not checked when a pytree is built (`no_type_check`):
`jax.tree.map` puts shardings, booleans or host numpy arrays into the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import no_type_check

import jax
from jaxtyping import Array, Bool, Float, Int, Int16, Key

RowKeys = Key[Array, "batch"]
"""One random key per record, folded from seed, step and global row: results do not depend on the mesh."""

Embeddings = dict[str, Array]
"""Named arrays with leading axis B, the only thing a loss sees (and all that an embedding cache keeps)."""


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextTokens:
    """Tokenised texts: K per ECG, S tokens each."""

    ids: Int[Array, "batch k tokens"]
    mask: Bool[Array, "batch k tokens"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextRows:
    """Texts by their row in the run's sorted table of distinct texts (for a cached text tower)."""

    index: Int[Array, "batch k"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextVectors:
    """Texts as what a frozen text tower pools of them (its rows of a text cache)."""

    pooled: Float[Array, "batch k hidden"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedTexts:
    """Tokenised texts, several to a row. The batch is cut into `packs` equal parts, each with rows of its own, so that
    no device needs the rows of another.

    `text` is a token's text by its number within its pack, in the order of the batch, -1 for padding; `position` counts
    from 0 in each text; `first` is where a text begins, counted in tokens of its pack.
    """

    ids: Int[Array, "rows tokens"]
    text: Int[Array, "rows tokens"]
    position: Int[Array, "rows tokens"]
    first: Int[Array, "batch k"]
    packs: int = field(metadata={"static": True})


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """One global batch. `ecg_uv` is stored microvolts (500 Hz, 12 leads, -32768 = missing).

    `text_group` is equal for equal texts. A batch in M micro-batches has one more axis in front of every field:
    [M, B / M, …], where record i of micro-batch m is row m·B/M + i of the global batch.

    `extras` are named arrays with leading axis B (mains_hz, labels, risk score …); `extras_present[name]` says per
    record whether the value is known.
    """

    ecg_uv: Int16[Array, "batch time lead"]
    record_row: Int[Array, "batch"]
    patient_group: Int[Array, "batch"]
    text_group: Int[Array, "batch k"]
    texts: TextTokens | TextRows | TextVectors | PackedTexts
    text_valid: Bool[Array, "batch k"]
    extras: Mapping[str, Array] = field(default_factory=dict)
    extras_present: Mapping[str, Array] = field(default_factory=dict)


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EcgInput:
    """What every ECG encoder takes: a preprocessed signal and what of it is real."""

    signal: Float[Array, "batch time lead"]
    lead_present: Bool[Array, "batch lead"]
    sample_valid: Bool[Array, "batch time"]


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EcgOutput:
    """What every ECG encoder returns: `pooled` for the shared space, `features` for probes, `tokens` if it has them.

    `features` is the mean of the trunk over time (MERL's linear-probe feature); `tokens` is the trunk's map;
    `pooled_mean` is the mean over time of what `pooled` pools (MERL's uni-modal alignment starts from it).
    """

    pooled: Float[Array, "batch dim"]
    features: Float[Array, "batch width"]
    tokens: Float[Array, "batch steps width"] | None = None
    pooled_mean: Float[Array, "batch dim"] | None = None


@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextOutput:
    """What every text encoder returns, the K texts of each ECG flattened into the first axis."""

    pooled: Float[Array, "texts hidden"]
    tokens: Float[Array, "texts tokens hidden"] | None = None
