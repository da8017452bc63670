"""Settings of evaluation protocols: how an encoder is fine-tuned, and in which order its settings are searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecgclip_jax.spec.base import Spec

Selection = Literal["macro_average_precision", "loss"]
"""What is compared on validation; `loss` is the mean over labels of their binary cross-entropy."""


class LogisticProbeSpec(Spec):
    """Linear probe solved to its optimum; one setting for all labels, the one of least validation log loss."""

    kind: Literal["logistic"] = "logistic"
    inverse_l2: tuple[float, ...] = Field((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    """scikit-learn's C, rising; two steps more than ecg-fix (0.01 … 10), as features are many and records few."""
    standardise: tuple[bool, ...] = Field((True,), min_length=1)
    """Whether features have unit variance; with several, validation chooses."""
    class_weight: tuple[Literal["none", "balanced"], ...] = Field(("none",), min_length=1)
    """`balanced`: both classes of a label weigh alike; with several, validation chooses."""


class GradientProbeSpec(Spec):
    """Linear probe trained by Adam on frozen features, as protocols have it that count epochs."""

    kind: Literal["gradient"] = "gradient"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    decoupled: bool = True
    """AdamW; otherwise the decay joins the gradient (Adam with L2)."""
    batch: int = Field(256, ge=1)
    epochs: int = Field(50, ge=1)
    milestone: int = Field(0, ge=0)
    """Epoch from which on the learning rate is a tenth; 0: never."""
    milestone_in_updates: bool = False
    """As released only: the milestone counts updates, as MERL's scheduler does, which is stepped at every one."""
    batch_norm: bool = False
    """Features pass a batch norm of their own first."""
    best_test_epoch: bool = False
    """As released only: rows of the epoch that is best on the test itself stand beside those chosen on validation."""


class FinetuneSpec(Spec):
    """Full fine-tuning of an ECG encoder with one linear layer for all labels; every number is our choice.

    The same settings serve every arm of a comparison, whatever weights it starts from.
    """

    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3), min_length=1)
    """One training each; validation chooses. Their number is the search budget of an arm."""
    epochs: int = Field(8, ge=1)
    """Passes over the training ECGs, where these make at least `min_steps` updates."""
    min_steps: int = Field(200, ge=1)
    """Updates where the ECGs are few: 77 of them make two updates an epoch."""
    batch: int = Field(64, ge=2)
    head_rate_factor: float = Field(1.0, gt=0)
    """The head's learning rate over the encoder's."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on kernels only."""
    schedule: Literal["cosine", "halving"] = "cosine"
    """`cosine` falls to zero at the last update; `halving` halves the rate every `halve_every_epochs`."""
    halve_every_epochs: int = Field(10, ge=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the updates in which the rate climbs."""
    head_start: Literal["linear_probe", "log_odds", "uniform"] = "linear_probe"
    """`linear_probe`: the probe of the encoder as it is, after its BatchNorm statistics settled on the training ECGs;
    `log_odds`: no weights, and the training prevalence as bias; `uniform`: PyTorch's default of a linear layer."""
    checks: int = Field(10, ge=1)
    """How often, evenly spread over the updates, the validation set is scored."""
    patience: int = Field(4, ge=1)
    """Checks without improvement after which a training ends."""
    selection: Selection = "macro_average_precision"
    """What chooses the check and the learning rate."""

    def steps(self, records: int) -> int:
        """Updates of one training on so many ECGs."""
        return max(self.min_steps, -(-self.epochs * records // self.batch))


ECGCLIP_AS_RELEASED = FinetuneSpec(
    learning_rates=(1e-3,),
    epochs=100,
    min_steps=1,
    batch=64,
    weight_decay=0.0,
    schedule="halving",
    halve_every_epochs=10,
    warmup_share=0.0,
    head_start="uniform",
    checks=100,
    patience=100,
    selection="loss",
)
"""The recipe of the one downstream task that ECGCLIP's authors released (prognosis; github.com/dt-yuhui/ECG-CLIP).

Adam at 1e-3 in batches of 64, halved every ten epochs, up to 100 epochs, the checkpoint of lowest validation loss, no
class weights. That its 89 diagnostic tasks were tuned so, with one head or one model each, is not known.
"""
