"""From the specification of an objective to the objective."""

from __future__ import annotations

from ecgclip_jax.objectives.clef import Clef
from ecgclip_jax.objectives.contrastive import InfoNCE, Sigmoid
from ecgclip_jax.objectives.fg_clep import FgClep
from ecgclip_jax.objectives.interfaces import Objective
from ecgclip_jax.objectives.self_supervised import BYOL, MoCo, SimCLR
from ecgclip_jax.objectives.supervised import Supervised
from ecgclip_jax.objectives.survival import Survival
from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.objectives import (
    BYOLSpec,
    ClefSpec,
    FgClepSpec,
    InfoNCESpec,
    MoCoSpec,
    ObjectiveSpec,
    SigmoidSpec,
    SimCLRSpec,
    SupervisedSpec,
    SurvivalSpec,
)

_OBJECTIVES: dict[type[Spec], type[Objective]] = {
    InfoNCESpec: InfoNCE,
    SigmoidSpec: Sigmoid,
    FgClepSpec: FgClep,
    ClefSpec: Clef,
    SimCLRSpec: SimCLR,
    BYOLSpec: BYOL,
    MoCoSpec: MoCo,
    SupervisedSpec: Supervised,
    SurvivalSpec: Survival,
}


def build_objective(spec: ObjectiveSpec) -> Objective:
    """The objective of an experiment (`experiment.objective`)."""
    return _OBJECTIVES[type(spec)](spec)  # type: ignore[call-arg]
