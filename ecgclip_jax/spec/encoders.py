"""The towers of an experiment: which encoder, how wide, how it pools, where its weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecgclip_jax.spec.base import Spec

ComputeDtype = Literal["float32", "bfloat16"]


class ResNet1DSpec(Spec):
    """MERL's 1-D ResNet: stem k7 s2 without max-pool, stages of strides 1/2/2/2 (papers: MERL, ECGCLIP)."""

    kind: Literal["resnet1d"] = "resnet1d"
    depth: Literal[10, 18, 34, 50, 101] = 18
    """Layers; 10, one block a stage, is no paper's but ours, for small machines and tests."""
    width: int = Field(64, ge=4)
    """Channels of the first stage; 64 is the published size."""
    norm_groups: int = Field(1, ge=1)
    """BatchNorm statistics over this many contiguous groups of the global batch; 1 = the whole batch."""
    norm_momentum: float = Field(0.1, gt=0, le=1)
    """Weight of the new statistics (PyTorch's convention)."""
    pooling: Literal["attention", "mean"] = "attention"
    """MERL's CLS-query attention pooling over time, or the mean over time."""
    pool_width: int = Field(256, ge=8)
    """Channels after the 1x1 convolution in front of the attention pooling."""
    pool_heads: int = Field(4, ge=1)
    dtype: ComputeDtype = "float32"

    @model_validator(mode="after")
    def _heads(self) -> ResNet1DSpec:
        if self.pooling == "attention" and self.pool_width % self.pool_heads:
            raise ValueError(f"pool_width {self.pool_width} must divide by pool_heads {self.pool_heads}")
        return self

    @property
    def feature_width(self) -> int:
        """Channels of the trunk's map: 512 for ResNet-18 and -34, 2048 for ResNet-50 and -101."""
        return self.width * 8 * (4 if self.depth >= 50 else 1)

    @property
    def pooled_width(self) -> int:
        """Width of what goes into the shared space."""
        return self.pool_width if self.pooling == "attention" else self.feature_width

    def trunk(self) -> ResNet1DSpec:
        """The same trunk without a pooling of its own, BatchNorm over the whole batch."""
        return self.replace({"pooling": "mean", "norm_groups": 1})


class ViT1DSpec(Spec):
    """MERL's 1-D vision transformer: windows of time as tokens, pre-norm blocks, the mean over tokens.

    Published sizes (width / heads): tiny 192 / 3, small 384 / 6, middle 512 / 8, base 768 / 12, all of depth 12.
    """

    kind: Literal["vit1d"] = "vit1d"
    patch_samples: int = Field(50, ge=1)
    """Samples of a window; windows do not overlap and must fill the signal."""
    windows: Literal["all_leads", "each_lead"] = "all_leads"
    """A token holds all leads of its window (MERL), or one lead's (FOCAL, the successor of FG-CLEP)."""
    width: int = Field(192, ge=8)
    depth: int = Field(12, ge=1)
    heads: int = Field(3, ge=1)
    norm_groups: int = Field(1, ge=1)
    """As in `ResNet1DSpec`, for heads with BatchNorm; the tower itself has none."""
    dtype: ComputeDtype = "float32"

    @model_validator(mode="after")
    def _heads(self) -> ViT1DSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must divide by heads {self.heads}")
        return self

    @property
    def feature_width(self) -> int:
        """Of the normalised mean over tokens."""
        return self.width

    @property
    def pooled_width(self) -> int:
        """The features themselves go into the shared space."""
        return self.width

    def trunk(self) -> ViT1DSpec:
        """The same tower; heads are not part of it."""
        return self.replace({"norm_groups": 1})


EcgEncoderSpec = Annotated[ResNet1DSpec | ViT1DSpec, Field(discriminator="kind")]


class TokenizerSpec(Spec):
    """Where tokens come from: trained on the run's own training reports, or a Hugging Face folder or name."""

    source: str = "train"
    """`train` (WordPiece on the training split of the run's sources) or a path or name of a tokenizer."""
    vocab_size: int = Field(2000, ge=64)
    """Only for `source = train`."""
    max_tokens: int = Field(64, ge=4, le=512)


class BertSpec(Spec):
    """A BERT-family text tower; `weights` names a folder with `config.json` and `model.safetensors`."""

    kind: Literal["bert"] = "bert"
    tokenizer: TokenizerSpec = TokenizerSpec()
    weights: str | None = None
    """Folder or Hub name of a checkpoint; its own config then overrides the sizes below. None = random weights."""
    hidden: int = Field(128, ge=16)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    intermediate: int = Field(512, ge=16)
    max_positions: int = Field(512, ge=8)
    token_types: int = Field(2, ge=1)
    """Rows of the token type table; texts are single segments, so only type 0 is used."""
    norm_epsilon: float = Field(1e-12, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    pooling: Literal["pooler", "cls", "mean"] = "pooler"
    dtype: ComputeDtype = "float32"

    @model_validator(mode="after")
    def _heads(self) -> BertSpec:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must divide by heads {self.heads}")
        if self.tokenizer.max_tokens > self.max_positions:
            raise ValueError(f"tokenizer.max_tokens {self.tokenizer.max_tokens} > max_positions {self.max_positions}")
        return self


class HeadSpec(Spec):
    """A projection: `none`, `linear`, MERL's `mlp` (linear, GELU, linear), or `mlp_norm` (linear, BatchNorm, ReLU,
    linear) as self-supervised methods have it; its BatchNorm always uses the batch's own statistics."""

    kind: Literal["none", "linear", "mlp", "mlp_norm"] = "mlp"
    hidden: int = Field(256, ge=4)
    norm_output: bool = False
    """`mlp_norm` only: the output is normalised too, without scale and bias (MoCo-v3's code has it, BYOL has not)."""

    @model_validator(mode="after")
    def _norm_of_what(self) -> HeadSpec:
        if self.norm_output and self.kind != "mlp_norm":
            raise ValueError(f"norm_output belongs to heads of kind 'mlp_norm', not {self.kind!r}")
        return self
