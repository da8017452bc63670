"""Some statements of each report instead of all of them: what the text tower sees in one step.

A zero-shot prompt is a single statement, a report is several. A tower that has only seen whole reports places single
statements badly, so a run may give it a random part of each report, in random order (ConVIRT, arXiv 2010.00747,
samples one sentence; the form here is ours). The draw is a function of seed, step and row of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32

from ecgclip_jax.data.batch import TokenTable
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.tokenizer import TextTokenizer

END_OF_STATEMENT = "."
_STREAM = 3
"""Beside the streams of `ecgclip_jax.data.order`, so that no draw repeats another."""
_OPENING, _CLOSING, _LEFT_OUT = -1.0, 2.0, 3.0
"""Sort keys of [CLS], [SEP] and of what is dropped; statements sort by their draw in [0, 1)."""


@dataclass(frozen=True, eq=False)
class StatementSampler:
    """Draws statements of the reports of a global batch."""

    tokens: TokenTable
    keep_probability: float
    seed: int
    separator: int
    padding: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer, tokens: TokenTable, keep_probability: float, seed: int) -> StatementSampler:
        """With the full stop and the padding of `tokenizer`.

        Raises:
            UserError: a tokenizer without a token for the full stop.
        """
        separator = tokenizer.convert_tokens_to_ids(END_OF_STATEMENT)
        if not isinstance(separator, int) or separator == tokenizer.unk_token_id:
            raise UserError("data.statement_keep_probability needs a tokenizer with a token for '.'; set it to 1")
        return cls(tokens, keep_probability, seed, separator, int(tokenizer.pad_token_id))

    def sample(
        self, step: int, text_row: Int32[np.ndarray, " batch_global"]
    ) -> tuple[
        Int32[np.ndarray, "batch_global tokens"],
        Bool[np.ndarray, "batch_global tokens"],
        Int32[np.ndarray, " batch_global"],
    ]:
        """Token ids and mask of the drawn statements of every row, and a number that equal drawn texts share."""
        ids, mask = self.tokens.ids[text_row].astype(np.int32), self.tokens.mask[text_row]
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, _STREAM, step))))
        ids, mask = keep_statements(
            ids, mask, draws.random(ids.shape), self.separator, self.padding, self.keep_probability
        )
        _, group = np.unique(ids, axis=0, return_inverse=True)
        return ids, mask, group.reshape(-1).astype(np.int32)


def keep_statements(
    ids: Int32[np.ndarray, "batch tokens"],
    mask: Bool[np.ndarray, "batch tokens"],
    draws: Float[np.ndarray, "batch tokens"],
    separator: int,
    padding: int,
    keep_probability: float,
) -> tuple[Int32[np.ndarray, "batch tokens"], Bool[np.ndarray, "batch tokens"]]:
    """The statements whose draw (uniform in [0, 1), one per statement) lies below `keep_probability`, in draw order.

    At least the statement with the lowest draw stays; [CLS] and [SEP] stay at the ends.
    """
    last = mask.sum(axis=1, keepdims=True) - 1
    position = np.arange(ids.shape[1])[None, :]
    inner = mask & (position > 0) & (position < last)
    ends = (ids == separator) & inner
    statement = np.cumsum(ends, axis=1) - ends
    drawn = np.where(inner, np.take_along_axis(draws, statement, axis=1), np.inf)
    kept = inner & ((drawn < keep_probability) | (drawn == drawn.min(axis=1, keepdims=True)))
    key = np.where(kept, drawn, _LEFT_OUT)
    key[:, 0] = _OPENING
    np.put_along_axis(key, last, np.where(last > 0, _CLOSING, _OPENING), axis=1)
    order = np.argsort(key, axis=1, kind="stable")
    stays = np.take_along_axis(key, order, axis=1) < _LEFT_OUT
    return np.where(stays, np.take_along_axis(ids, order, axis=1), padding).astype(np.int32), stays
