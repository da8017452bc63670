"""MERL's 1-D vision transformer: windows of time become tokens, pre-norm blocks, the mean over tokens.

Source: released code of MERL (`utils/vit1d.py`). With a token per lead and window it is the encoder of FOCAL, the
successor of FG-CLEP, which normalises its tokens before their mean instead of the mean itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ecgclip_jax.contracts import EcgInput, EcgOutput, RowKeys
from ecgclip_jax.models.layers import BLOCK_OUTPUT, LayerNorm, Linear, Rngs, kept_as, normal
from ecgclip_jax.spec.encoders import ViT1DSpec

LAYER_NORM_EPSILON = 1e-5
"""PyTorch's default."""
MLP_RATIO = 4
LEAD_TOKEN_STD = 0.02
"""Of the embeddings of leads and times where each lead has tokens of its own."""


class Attention(nnx.Module):
    """Multi-head self-attention of all tokens with its output projection."""

    def __init__(self, width: int, heads: int, *, rngs: Rngs) -> None:
        self.query, self.key, self.value, self.out = (Linear(width, width, rngs=rngs) for _ in range(4))
        self.heads = heads

    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """What every token takes from all; scores and softmax in float32."""
        batch, tokens, width = x.shape
        q, k, v = (
            projection(x).reshape(batch, tokens, self.heads, width // self.heads)
            for projection in (self.query, self.key, self.value)
        )
        seen: Array = jax.nn.dot_product_attention(q, k, v)
        return self.out(seen.reshape(batch, tokens, width))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with the exact GELU."""

    def __init__(self, width: int, heads: int, *, rngs: Rngs) -> None:
        self.norm1, self.norm2 = (LayerNorm(width, epsilon=LAYER_NORM_EPSILON) for _ in range(2))
        self.attention = Attention(width, heads, rngs=rngs)
        self.linear1 = Linear(width, MLP_RATIO * width, rngs=rngs)
        self.linear2 = Linear(MLP_RATIO * width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Token states after this block."""
        x = x + self.attention(self.norm1(x))
        return kept_as(BLOCK_OUTPUT, x + self.linear2(jax.nn.gelu(self.linear1(self.norm2(x)), approximate=False)))


class ViT1D(nnx.Module):
    """The ECG tower without convolutions: no BatchNorm, no dropout, so training and use are one function.

    As published, masks of the input are not used. `EcgOutput.pooled`, `features` and `pooled_mean` are one: the
    normalised mean over tokens, [batch, width] float32. `tokens` are in the order of time, with a token per lead
    lead by lead.
    """

    def __init__(self, spec: ViT1DSpec, *, leads: int, samples: int, rngs: Rngs) -> None:
        self.dtype = jnp.dtype(spec.dtype)
        self.patch_samples, self.each_lead, self.depth = spec.patch_samples, spec.windows == "each_lead", spec.depth
        windows = samples // spec.patch_samples
        if windows * spec.patch_samples != samples:
            raise ValueError(f"ViT1D: windows of {spec.patch_samples} samples do not fill {samples}")
        if self.each_lead:
            embedding = normal(LEAD_TOKEN_STD)
            self.patch = Linear(spec.patch_samples, spec.width, rngs=rngs)
            self.lead_positions = nnx.Param(embedding(rngs.params(), (leads, 1, spec.width)))
            self.positions = nnx.Param(embedding(rngs.params(), (windows, spec.width)))
        else:
            # The published convolution of stride = kernel, bias left out, is one matrix product.
            self.patch = Linear(spec.patch_samples * leads, spec.width, bias=False, rngs=rngs)
            self.positions = nnx.Param(normal(1.0)(rngs.params(), (windows, spec.width)))
        for number in range(spec.depth):
            setattr(self, f"block{number}", Block(spec.width, spec.heads, rngs=rngs))
        self.norm = LayerNorm(spec.width, epsilon=LAYER_NORM_EPSILON)

    def __call__(self, ecg: EcgInput, *, train: bool, keys: RowKeys | None = None) -> EcgOutput:
        """`train` and `keys` are taken because every tower takes them: this one is the same in training."""
        x = self._patches(ecg.signal.astype(self.dtype))
        for number in range(self.depth):
            x = getattr(self, f"block{number}")(x)
        tokens = self.norm(x) if self.each_lead else x
        mean = tokens.astype(jnp.float32).mean(axis=1)
        features = mean if self.each_lead else self.norm(mean)
        return EcgOutput(pooled=features, features=features, tokens=tokens, pooled_mean=features)

    def _patches(self, signal: Float[Array, "batch time lead"]) -> Float[Array, "batch tokens width"]:
        """Windows as tokens, with where they stand."""
        batch, time, leads = signal.shape
        windows = signal.reshape(batch, time // self.patch_samples, self.patch_samples, leads)
        positions = self.positions[...].astype(signal.dtype)
        if not self.each_lead:
            return self.patch(windows.reshape(batch, -1, self.patch_samples * leads)) + positions
        by_lead = self.patch(windows.transpose(0, 3, 1, 2)) + self.lead_positions[...].astype(signal.dtype) + positions
        return by_lead.reshape(batch, -1, by_lead.shape[-1])
