"""From the specification of an objective to the objective."""

from __future__ import annotations

from ecgclip_jax.objectives.contrastive import InfoNCE, Sigmoid
from ecgclip_jax.objectives.interfaces import Objective
from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.objectives import InfoNCESpec, ObjectiveSpec, SigmoidSpec

_OBJECTIVES: dict[type[Spec], type[Objective]] = {InfoNCESpec: InfoNCE, SigmoidSpec: Sigmoid}


def build_objective(spec: ObjectiveSpec) -> Objective:
    """The objective of an experiment (`experiment.objective`)."""
    return _OBJECTIVES[type(spec)](spec)  # type: ignore[call-arg]
