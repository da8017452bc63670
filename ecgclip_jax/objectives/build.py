"""From the specification of an objective to the objective."""

from __future__ import annotations

from ecgclip_jax.objectives.contrastive import ContrastiveObjective, InfoNCE, Sigmoid
from ecgclip_jax.spec.objectives import InfoNCESpec, SigmoidSpec

Objective = ContrastiveObjective


def build_objective(spec: InfoNCESpec | SigmoidSpec) -> Objective:
    """The objective of an experiment (`experiment.objective`)."""
    return InfoNCE(spec) if isinstance(spec, InfoNCESpec) else Sigmoid(spec)
