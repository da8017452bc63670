"""An ECG embedding per tag: attention of a statement of the report over the patches of its ECG.

FG-CLEP (arXiv 2505.11939) names this cross-attention and does not publish it, so the form is ours. Two properties
decided it. The patches are their own values and the tag adds nothing to the result: it only says where to look, so a
tag cannot write itself into the ECG's embedding. And attention that looks everywhere alike is the mean of the patches,
which is how the group's later code (FOCAL) embeds an ECG where no tag is given.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.layers import Linear, Rngs


class TagAttentionLayer(nnx.Module):
    """Patches in the shared space, and multi-head attention of tags over them (each head weighs its own dimensions)."""

    def __init__(self, token_width: int, dim: int, attention_heads: int, *, rngs: Rngs) -> None:
        if dim % attention_heads:
            raise ValueError(f"tag attention: {attention_heads} heads do not divide {dim} dimensions")
        self.patch = Linear(token_width, dim, bias=False, rngs=rngs)
        self.query = Linear(dim, dim, rngs=rngs)
        self.key = Linear(dim, dim, rngs=rngs)
        self.attention_heads = attention_heads

    def __call__(
        self, tokens: Float[Array, "batch steps token_width"], tags: Float[Array, "batch k dim"] | None
    ) -> Float[Array, "batch rows dim"]:
        """The patches at length 1 (as FOCAL has them), or, with `tags`, their mean by each tag's attention."""
        patches = self.patch(tokens.astype(jnp.float32))
        patches *= jax.lax.rsqrt(jnp.maximum(jnp.square(patches).sum(axis=-1, keepdims=True), 1e-24))
        if tags is None:
            return patches
        query, key, value = (self._per_head(x) for x in (self.query(tags), self.key(patches), patches))
        scores = jnp.einsum("bkhd,bthd->bhkt", query, key) / math.sqrt(query.shape[-1])
        attended = jnp.einsum("bhkt,bthd->bkhd", jax.nn.softmax(scores, axis=-1), value)
        return attended.reshape(tags.shape)

    def _per_head(self, x: Float[Array, "batch rows dim"]) -> Float[Array, "batch rows heads head_dim"]:
        return x.reshape(*x.shape[:2], self.attention_heads, -1)


class TagAttention:
    """The layer as pure functions.

    Raises:
        ValueError: heads that do not divide the dimensions.
    """

    def __init__(self, token_width: int, dim: int, attention_heads: int) -> None:
        self._module = PureModule(lambda rngs: TagAttentionLayer(token_width, dim, attention_heads, rngs=rngs))

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        return self._module.init(key)[0]

    def apply(self, params: Tree, x: Float[Array, "batch steps token_width"]) -> Float[Array, "batch steps dim"]:
        """The patches of ECGs in the shared space, each of length 1."""
        patches: Array = self._module.apply(params, {}, x, None)[0]
        return patches

    def attend(
        self, params: Tree, tokens: Float[Array, "batch steps token_width"], tags: Float[Array, "batch k dim"]
    ) -> Float[Array, "batch k dim"]:
        """For each tag the mean of its ECG's patches, weighted by attention."""
        attended: Array = self._module.apply(params, {}, tokens, tags)[0]
        return attended
