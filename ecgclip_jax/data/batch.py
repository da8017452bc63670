"""Rows of the index become the arrays of a batch; all of it numpy on the host, nothing read twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32, Shaped
from numpy.typing import ArrayLike

from ecgclip_jax.contracts import Batch, TextRows, TextTokens
from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.text.tokenizer import TextTokenizer, encode_texts

EXTRAS = ("mains_hz",)
"""Numeric fields of a record that travel with every batch whatever the objective; NaN means unknown."""

_TEXTS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class TokenTable:
    """The tokens of every distinct text of a run, by row of its table of texts."""

    ids: Shaped[np.ndarray, "texts tokens"]
    """uint16 where the vocabulary allows it: 800,000 reports of 64 tokens are 100 MB."""
    mask: Bool[np.ndarray, "texts tokens"]

    def take(self, rows: Int32[np.ndarray, " batch"]) -> TextTokens:
        """Tokens of some texts as the batch's `[batch, 1, tokens]`."""
        ids, mask = self.ids[rows, None].astype(np.int32), self.mask[rows, None]
        return TextTokens(ids=cast("Any", ids), mask=cast("Any", mask))


def tokenize_texts(tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int) -> TokenTable:
    """Every text once, when a run is opened; in parts, because the tokenizer's own objects take far more memory."""
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    ids = np.empty((len(texts), max_tokens), dtype)
    mask = np.empty((len(texts), max_tokens), bool)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = slice(start, start + _TEXTS_AT_ONCE)
        ids[part], mask[part] = encode_texts(tokenizer, texts[part], max_tokens)
    return TokenTable(ids, mask)


@dataclass(frozen=True, eq=False)
class Extras:
    """Named numbers by row, with what is known of them: presence has its values' shape, unknown values are 0."""

    values: dict[str, Float32[np.ndarray, "rows ..."]]
    present: dict[str, Bool[np.ndarray, "rows ..."]]

    @classmethod
    def from_columns(cls, columns: Mapping[str, ArrayLike]) -> Extras:
        """From columns `[rows, ...]` in which NaN means unknown."""
        raw = {name: np.asarray(column, np.float32) for name, column in columns.items()}
        present = {name: ~np.isnan(column) for name, column in raw.items()}
        return cls({name: np.nan_to_num(column, nan=0.0) for name, column in raw.items()}, present)

    def __or__(self, other: Extras) -> Extras:
        """Both together."""
        return Extras(self.values | other.values, self.present | other.present)

    def take(self, rows: Int32[np.ndarray, " batch"]) -> Extras:
        """The same fields of some rows."""
        return Extras({k: v[rows] for k, v in self.values.items()}, {k: v[rows] for k, v in self.present.items()})


class BatchBuilder:
    """Everything of a batch but the waveforms, looked up in arrays that are made once per run."""

    def __init__(self, index: RunIndex, tokens: TokenTable | None, targets: Extras | None = None) -> None:
        """Without `tokens` a batch carries rows of the table of texts (for a text tower that is cached).

        `targets` are what the objective needs of the records beside texts, by row of the index
        (`ecgclip_jax.data.targets.target_extras`).
        """
        self._text_row, self._patient_row = index.text_row, index.patient_row
        self._tokens = tokens
        self._text_valid = np.asarray([bool(text.strip()) for text in index.texts], bool)
        own = Extras.from_columns({name: index.column(name) for name in EXTRAS})
        self._extras = own if targets is None else own | targets

    def build(self, rows: Int32[np.ndarray, " batch"], ecg_uv: Int16[np.ndarray, "batch time lead"]) -> Batch:
        """The batch of some records of the index, with numpy leaves and the whole report as K = 1 text per ECG."""
        text_row = self._text_row[rows]
        texts = TextRows(cast("Any", text_row[:, None])) if self._tokens is None else self._tokens.take(text_row)
        extras = self._extras.take(rows)
        fields: dict[str, Any] = {
            "ecg_uv": ecg_uv,
            "record_row": rows,
            "patient_group": self._patient_row[rows],
            "text_group": text_row[:, None],
            "texts": texts,
            "text_valid": self._text_valid[text_row, None],
            "extras": extras.values,
            "extras_present": extras.present,
        }
        return Batch(**fields)
