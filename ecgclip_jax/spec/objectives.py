"""The training objective of an experiment; `ecgclip_jax.objectives` holds the functions.

Defaults are the sources' (`paper` where it is known, else the released code); what no source states is marked ours.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.encoders import HeadSpec


class _Objective(Spec):
    """What every objective tells the rest of the system without being built."""

    reads_text: ClassVar[bool] = True
    """Whether it needs the text tower."""
    views: ClassVar[int] = 1
    """ECG inputs made of each record, each augmented by itself."""
    has_target: ClassVar[bool] = False
    """Whether it keeps a momentum copy of the ECG tower."""


class _TwoTowers(_Objective):
    """What every ECG-text objective shares: the shared space and its heads."""

    embedding_dim: int = Field(256, ge=4)
    ecg_head: HeadSpec = HeadSpec(kind="none")
    """MERL's ResNet has none: attention pooling ends in the shared space."""
    text_head: HeadSpec = HeadSpec(kind="mlp")
    mask_same_patient: bool = False
    """Other ECGs of the same patient are no negatives."""
    mask_same_text: bool = False
    """ECGs with an identical report are no negatives."""

    @model_validator(mode="after")
    def _heads_for_single_records(self) -> _TwoTowers:
        if "mlp_norm" in (self.ecg_head.kind, self.text_head.kind):
            raise ValueError(
                "a head of kind 'mlp_norm' needs the other rows of a batch: it cannot embed a single ECG or prompt; "
                "use 'linear' or 'mlp' for ecg_head and text_head"
            )
        return self


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
    soft_target_weight: float = Field(0.0, ge=0, le=1)
    """Share of each row's target that is spread over the texts by their similarity to its own (ours; 0 = one-hot)."""
    soft_target_scale: float = Field(10.0, gt=0)
    """Inverse temperature of that similarity (ours)."""


class SigmoidSpec(_TwoTowers):
    """Pairwise sigmoid contrast (SigLIP): sum over negatives, mean over rows."""

    kind: Literal["sigmoid"] = "sigmoid"
    scale: float = Field(10.0, gt=0)
    bias: float = -10.0
    learn_scale: bool = True
    learn_bias: bool = True
    max_scale: float = Field(100.0, gt=0)


class FgClepSpec(_TwoTowers):
    """FG-CLEP: sigmoid contrast over tags (statements of the reports) instead of whole reports.

    The paper's exact loss is not public. Where it is silent, the group's later code (FOCAL) stands: soft targets
    (1 + cosine)/2, scale 10 learned, no bias, mean over all pairs; the weight of the false-negative term is a third
    party's reading of the paper. `data.texts_per_ecg` is the number of tags.
    """

    kind: Literal["fg_clep"] = "fg_clep"
    scale: float = Field(10.0, gt=0)
    learn_scale: bool = True
    bias: float = 0.0
    learn_bias: bool = False
    max_scale: float = Field(100.0, gt=0)
    soft_targets: bool = True
    """Targets from the similarity of tags; off: each tag has its own ECG as the only positive, and the other tags of
    that ECG are no negatives."""
    similarity_of: Literal["projected", "tower"] = "projected"
    """Whose cosine is the similarity of two tags: of the projected embeddings, as in FOCAL, or (ours) of the text
    tower's output, centred on the batch. The former presumes a model that tells texts apart already, as FOCAL's coarse
    stage gives: from random weights all texts look alike, which makes every pair a positive, and it stays so."""
    l1_weight: float = Field(0.5, ge=0)
    """Weight of the false-negative term |cosine(ECG, tag) - cosine(tag, tag)|; 0 = off."""
    tag_attention: bool = True
    """An ECG embedding per tag: cross-attention of the tag over the ECG's patches. Off: one embedding per ECG."""
    attention_heads: int = Field(4, ge=1)


class RiskSpec(Spec):
    """SCORE2 (below 70 years) and SCORE2-OP (from 70 on), the 10-year risk of a cardiovascular event."""

    region: Literal["low", "moderate", "high", "very_high"] = "low"
    """Risk region; which one CLEF took is UNKNOWN, low is ours."""
    older_from_years: float = Field(70.0, ge=0)
    """SCORE2-OP from this age on (the guideline's rule; what CLEF did is UNKNOWN)."""


class ClefSpec(_Objective):
    """CLEF: contrast of two views of an ECG, weighted by the distance of the patients' risk scores."""

    reads_text: ClassVar[bool] = False
    views: ClassVar[int] = 2
    kind: Literal["clef"] = "clef"
    temperature: float = Field(0.07, gt=0)
    alpha: float = Field(0.2, ge=0, le=1)
    """Least distance of two different patients."""
    missing_mask: bool = True
    """Distances shrink with missing metadata (paper); the released code leaves this off."""
    contrast_weight: float = Field(1.0, ge=0)
    """Of L_w."""
    distance_weight: float = Field(1.0, ge=0)
    """Of L_d."""
    reduction: Literal["sum", "mean"] = "sum"
    """L_w + L_d (paper) or their mean (released code)."""
    risk: RiskSpec = RiskSpec()


class SimCLRSpec(_Objective):
    """SimCLR on two views: InfoNCE over the 2B views. Without projector as in CLEF's comparison."""

    reads_text: ClassVar[bool] = False
    views: ClassVar[int] = 2
    kind: Literal["simclr"] = "simclr"
    temperature: float = Field(0.07, gt=0)
    projector: HeadSpec = HeadSpec(kind="none")
    projector_dim: int = Field(256, ge=4)
    """Width after the projector; without one the tower's own width counts."""


class BYOLSpec(_Objective):
    """BYOL on two views: the online branch predicts the momentum branch; no negatives."""

    reads_text: ClassVar[bool] = False
    views: ClassVar[int] = 2
    has_target: ClassVar[bool] = True
    kind: Literal["byol"] = "byol"
    momentum: float = Field(0.996, ge=0, le=1)
    """Of the target at the start; it rises to 1 along a cosine if `momentum_to_one` (BYOL's paper)."""
    momentum_to_one: bool = True
    projector: HeadSpec = HeadSpec(kind="none")
    projector_dim: int = Field(256, ge=4)
    predictor: HeadSpec = HeadSpec(kind="mlp_norm", hidden=128)


class MoCoSpec(_Objective):
    """MoCo-v3 style contrast on two views: predictions against momentum keys of the batch, no queue.

    Heads as in MoCo-v3's code, both with a normalised output; their widths are ours.
    """

    reads_text: ClassVar[bool] = False
    views: ClassVar[int] = 2
    has_target: ClassVar[bool] = True
    kind: Literal["moco"] = "moco"
    temperature: float = Field(0.2, gt=0)
    momentum: float = Field(0.99, ge=0, le=1)
    momentum_to_one: bool = True
    projector: HeadSpec = HeadSpec(kind="mlp_norm", hidden=256, norm_output=True)
    projector_dim: int = Field(256, ge=4)
    predictor: HeadSpec = HeadSpec(kind="mlp_norm", hidden=256, norm_output=True)


class SupervisedSpec(_Objective):
    """Labels and measurements from the ECG: masked binary cross-entropy per label, squared error per measurement."""

    reads_text: ClassVar[bool] = False
    kind: Literal["supervised"] = "supervised"
    label_vocabulary: str = "synthetic"
    """Vocabulary of the label codes that are mapped to concepts; `report_rules`: no codes, but what the records' own
    reports state, found by rule."""
    labels: tuple[str, ...] = ()
    """Concepts, one logit each; a record without known labels does not count."""
    measurements: tuple[str, ...] = ()
    """Numeric fields of the records, such as `age_years`, and what their source measured, such as `qrs_ms`;
    standardised by the training records' mean and SD."""
    regression_weight: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _some_task(self) -> SupervisedSpec:
        if not self.labels and not self.measurements:
            raise ValueError("a supervised objective needs labels or measurements")
        return self


class SurvivalSpec(_Objective):
    """Discrete-time survival (nnet-survival), as in ECGCLIP's released prognosis code: 39 intervals over 5 years."""

    reads_text: ClassVar[bool] = False
    kind: Literal["survival"] = "survival"
    horizon_years: float = Field(5.0, gt=0)
    interval_days: float = Field(365 / 8, gt=0)
    """Break points stand every so many days from 0 on, below the horizon."""
    survival_at_start: float = Field(0.5, gt=0, lt=1)
    """Chance of surviving an interval that a head of zeros predicts. The released code has nothing of the kind, which
    is 0.5; nearer to the truth, training does not begin with pushing all features one way (ours)."""

    @model_validator(mode="after")
    def _an_interval(self) -> SurvivalSpec:
        if self.horizon_years * 365 <= self.interval_days:
            raise ValueError(
                f"a horizon of {self.horizon_years} years holds no interval of {self.interval_days} days: "
                "lengthen horizon_years or shorten interval_days"
            )
        return self


ObjectiveSpec = Annotated[
    InfoNCESpec
    | SigmoidSpec
    | FgClepSpec
    | ClefSpec
    | SimCLRSpec
    | BYOLSpec
    | MoCoSpec
    | SupervisedSpec
    | SurvivalSpec,
    Field(discriminator="kind"),
]
"""Any objective, told apart by `kind`."""
