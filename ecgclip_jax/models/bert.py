"""BERT in Flax, numerically equal to `transformers`' PyTorch `BertModel` (which has had no Flax twin since version 5).

Paths mirror the published structure: `embeddings/word`, `layer0/attention/query`, `layer0/intermediate`, `pooler`.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ecgclip_jax.contracts import PackedTexts, RowKeys, TextOutput
from ecgclip_jax.models.layers import (
    BLOCK_OUTPUT,
    Embedding,
    LayerNorm,
    Linear,
    Rngs,
    kept_as,
    normal,
    row_dropout,
    zeros,
)
from ecgclip_jax.spec.encoders import BertSpec

INIT_STD = 0.02
"""BERT's initializer_range."""


class BertEmbeddings(nnx.Module):
    """Word + position + token type 0, LayerNorm."""

    def __init__(self, spec: BertSpec, vocab_size: int, *, rngs: Rngs) -> None:
        self.word = Embedding(vocab_size, spec.hidden, std=INIT_STD, rngs=rngs)
        self.position = Embedding(spec.max_positions, spec.hidden, std=INIT_STD, rngs=rngs)
        self.token_type = Embedding(spec.token_types, spec.hidden, std=INIT_STD, rngs=rngs)
        self.norm = LayerNorm(spec.hidden, epsilon=spec.norm_epsilon)

    def __call__(
        self, ids: Int[Array, "texts tokens"], position: Int[Array, "texts tokens"] | None = None
    ) -> Float[Array, "texts tokens hidden"]:
        """Token states before the first layer; without `position` each row is one text.

        Raises:
            ValueError: a text longer than the table of positions.
        """
        if position is not None:
            return self.norm(self.word(ids) + self.position(position) + self.token_type.embedding[0])
        longest = self.position.embedding.shape[0]
        if ids.shape[1] > longest:
            raise ValueError(f"a text of {ids.shape[1]} tokens does not fit the text encoder's {longest} positions")
        positions = self.position(jnp.arange(ids.shape[1]))
        return self.norm(self.word(ids) + positions + self.token_type.embedding[0])


class BertAttention(nnx.Module):
    """Multi-head self-attention with its output projection, residual and LayerNorm."""

    def __init__(self, spec: BertSpec, *, rngs: Rngs) -> None:
        self.query, self.key, self.value, self.out = (_dense(spec.hidden, spec.hidden, rngs) for _ in range(4))
        self.norm = LayerNorm(spec.hidden, epsilon=spec.norm_epsilon)
        self.heads = spec.heads
        self.dropout = spec.dropout

    def __call__(
        self,
        x: Float[Array, "texts tokens hidden"],
        mask: Bool[Array, "texts queries tokens"],
        keys: RowKeys | None,
        site: int,
    ) -> Float[Array, "texts tokens hidden"]:
        """Token states after attention to where `mask` allows, which has one row for all queries or one for each.

        Dropout sites `site` and `site` + 1.
        """
        texts, tokens, hidden = x.shape
        q, k, v = (
            projection(x).reshape(texts, tokens, self.heads, hidden // self.heads)
            for projection in (self.query, self.key, self.value)
        )
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k).astype(jnp.float32) / math.sqrt(hidden // self.heads)
        # A finite floor, as in transformers: a text of padding alone gets uniform weights instead of NaN.
        scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
        weights = row_dropout(jax.nn.softmax(scores, axis=-1).astype(x.dtype), self.dropout, keys, site)
        context = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(texts, tokens, hidden)
        return self.norm(x + row_dropout(self.out(context), self.dropout, keys, site + 1))


class BertLayer(nnx.Module):
    """Self-attention, then two linear layers with the exact GELU between them; LayerNorm after each residual."""

    DROPOUT_SITES = 3

    def __init__(self, spec: BertSpec, *, rngs: Rngs) -> None:
        self.attention = BertAttention(spec, rngs=rngs)
        self.intermediate = _dense(spec.hidden, spec.intermediate, rngs)
        self.output = _dense(spec.intermediate, spec.hidden, rngs)
        self.norm = LayerNorm(spec.hidden, epsilon=spec.norm_epsilon)
        self.dropout = spec.dropout

    def __call__(
        self,
        x: Float[Array, "texts tokens hidden"],
        mask: Bool[Array, "texts queries tokens"],
        keys: RowKeys | None,
        site: int,
    ) -> Float[Array, "texts tokens hidden"]:
        """Token states after this layer, which owns `DROPOUT_SITES` dropout sites from `site` on."""
        x = self.attention(x, mask, keys, site)
        y = self.output(jax.nn.gelu(self.intermediate(x), approximate=False))
        return kept_as(BLOCK_OUTPUT, self.norm(x + row_dropout(y, self.dropout, keys, site + 2)))


class Bert(nnx.Module):
    """The text tower: `TextOutput.pooled` is [texts, hidden] float32 by the spec's pooling.

    `pooler`: tanh of a linear layer on the first token (BERT's own); `cls`: the first token's state; `mean`: the mean
    of the states of real tokens.
    """

    def __init__(self, spec: BertSpec, vocab_size: int, *, rngs: Rngs) -> None:
        self.dtype = jnp.dtype(spec.dtype)
        self.pooling = spec.pooling
        self.dropout = spec.dropout
        self.layers = spec.layers
        self.embeddings = BertEmbeddings(spec, vocab_size, rngs=rngs)
        for number in range(spec.layers):
            setattr(self, f"layer{number}", BertLayer(spec, rngs=rngs))
        if spec.pooling == "pooler":
            self.pooler = _dense(spec.hidden, spec.hidden, rngs)

    def __call__(
        self,
        ids: Int[Array, "texts tokens"],
        mask: Bool[Array, "texts tokens"],
        *,
        train: bool,
        keys: RowKeys | None = None,
        packed: PackedTexts | None = None,
    ) -> TextOutput:
        """Dropout runs when `train` and one key per text are given.

        With `packed`, whose rows `ids` then are, several texts share a row and none sees another: `pooled` has a row
        for each text all the same.
        """
        keys = keys if train else None
        position = None if packed is None else packed.position
        allowed = mask[:, None, :] if packed is None else _same_text(packed.text)
        x = row_dropout(self.embeddings(ids, position), self.dropout, keys, site=0).astype(self.dtype)
        for number in range(self.layers):
            site = 1 + number * BertLayer.DROPOUT_SITES
            x = getattr(self, f"layer{number}")(x, allowed, keys, site)
        pooled = self._pool(x, mask) if packed is None else self._pool_packed(x, packed)
        return TextOutput(pooled=pooled.astype(jnp.float32), tokens=x)

    def _pool_packed(self, x: Float[Array, "rows tokens hidden"], packed: PackedTexts) -> Float[Array, "texts hidden"]:
        """Of each text by itself; every pack is pooled from its own rows."""
        states, first = x.reshape(packed.packs, -1, x.shape[-1]), packed.first.reshape(packed.packs, -1)
        if self.pooling == "mean":
            text = packed.text.reshape(packed.packs, -1)
            sums = partial(jax.ops.segment_sum, num_segments=first.shape[1] + 1)
            # Padding, number -1, is added up in a place of its own after the last text.
            place = jnp.where(text < 0, first.shape[1], text)
            total, count = (
                jax.vmap(sums)(states.astype(jnp.float32), place),
                jax.vmap(sums)(jnp.ones_like(place), place),
            )
            mean = (total / jnp.maximum(count, 1)[..., None])[:, :-1]
            return mean.reshape(-1, x.shape[-1])
        cls = jax.vmap(lambda rows, at: rows[at])(states, first).reshape(-1, x.shape[-1])
        return jnp.tanh(self.pooler(cls)) if self.pooling == "pooler" else cls

    def _pool(
        self, x: Float[Array, "texts tokens hidden"], mask: Bool[Array, "texts tokens"]
    ) -> Float[Array, "texts hidden"]:
        if self.pooling == "pooler":
            return jnp.tanh(self.pooler(x[:, 0]))
        if self.pooling == "cls":
            return x[:, 0]
        weights = mask[:, :, None].astype(jnp.float32)
        return (x.astype(jnp.float32) * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)


def _same_text(text: Int[Array, "rows tokens"]) -> Bool[Array, "rows tokens tokens"]:
    """Which tokens of a row may look at which: those of one text; padding (-1) is looked at by padding alone."""
    return text[:, :, None] == text[:, None, :]


def _dense(width_in: int, width_out: int, rngs: Rngs) -> Linear:
    """A linear layer with BERT's initialisation."""
    return Linear(width_in, width_out, kernel_init=normal(INIT_STD), bias_init=zeros, rngs=rngs)
