"""The training objective of an experiment; `ecgclip_jax.objectives` holds the functions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.encoders import HeadSpec


class _TwoTowers(Spec):
    """What every ECG-text objective shares: the shared space and its heads."""

    embedding_dim: int = Field(256, ge=4)
    ecg_head: HeadSpec = HeadSpec(kind="none")
    """MERL's ResNet has none: attention pooling ends in the shared space."""
    text_head: HeadSpec = HeadSpec(kind="mlp")
    mask_same_patient: bool = False
    """Other ECGs of the same patient are no negatives."""
    mask_same_text: bool = False
    """ECGs with an identical report are no negatives."""


class InfoNCESpec(_TwoTowers):
    """Softmax contrast of ECGs and reports (CLIP, MERL)."""

    kind: Literal["infonce"] = "infonce"
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = False
    max_scale: float = Field(100.0, gt=0)
    """Upper bound of 1/temperature when it is learned."""
    direction: Literal["sum", "mean"] = "sum"
    """MERL adds ECG→text and text→ECG; CLIP takes their mean."""
    uni_modal_weight: float = Field(0.0, ge=0)
    """Weight of MERL's uni-modal alignment: two linear views of the pooled trunk with their own dropout."""
    uni_modal_dropout: float = Field(0.1, ge=0, lt=1)


class SigmoidSpec(_TwoTowers):
    """Pairwise sigmoid contrast (SigLIP): sum over negatives, mean over rows."""

    kind: Literal["sigmoid"] = "sigmoid"
    scale: float = Field(10.0, gt=0)
    bias: float = -10.0
    learn_scale: bool = True
    learn_bias: bool = True
    max_scale: float = Field(100.0, gt=0)


ObjectiveSpec = InfoNCESpec | SigmoidSpec
