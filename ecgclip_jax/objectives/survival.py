"""Discrete-time survival: the chance of an event in each interval after the ECG, learned from censored follow-up.

Source: Gensheimer and Narasimhan, "A scalable discrete-time survival model for neural networks", PeerJ 7:e6257 (2019),
and its public code (github.com/MGensheimer/nnet-survival, MIT), which ECGCLIP's released prognosis code uses. Its
convention: after an event, an interval counts as survived if it ended by then; with censoring, an interval counts as
survived if follow-up passed its midpoint, and nothing is known of the later ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ecgclip_jax.contracts import Batch, Embeddings
from ecgclip_jax.objectives.extras import known_values
from ecgclip_jax.objectives.interfaces import Heads, Tree
from ecgclip_jax.objectives.reference import Metrics, Scalar
from ecgclip_jax.objectives.supervised import FromFeatures
from ecgclip_jax.spec.objectives import SurvivalSpec

DAYS_PER_YEAR = 365
"""As in ECGCLIP's released code."""


@dataclass(frozen=True)
class Survival(FromFeatures):
    """`survival`: a logit per interval, of surviving it once one has come so far."""

    spec: SurvivalSpec

    def outputs(self) -> dict[str, int]:
        """One head, a logit per interval."""
        return {"survival": n_intervals(self.spec)}

    def init(self, key: Key[Array, ""], heads: Heads) -> Tree:
        """A head of zeros (ours): the first steps then do not push the features along dozens of random directions."""
        zeros: Tree = jax.tree.map(jnp.zeros_like, super().init(key, heads))
        return zeros

    def loss(
        self, embeddings: Embeddings, params: Tree, batch: Batch, mesh_axes: tuple[str, ...]
    ) -> tuple[Scalar, Metrics]:
        """Negative log-likelihood, mean over records of known outcome (the released code takes the sum).

        Raises:
            MissingColumnError: a batch without `follow_up_years` and `event`.
        """
        years, years_known = known_values(batch, "follow_up_years", self.spec.kind)
        event, event_known = known_values(batch, "event", self.spec.kind)
        survived, failed = outcome(self.spec, years, event > 0)
        logits = interval_logits(self.spec, embeddings["survival"])
        losses = (survived * jax.nn.softplus(-logits) + failed * jax.nn.softplus(logits)).sum(axis=1)
        known = years_known & event_known
        loss = jnp.where(known, losses, 0).sum() / jnp.maximum(known.sum(), 1)
        return loss, {"loss": loss, "events": (known & (event > 0)).sum(dtype=loss.dtype)}


def n_intervals(spec: SurvivalSpec) -> int:
    """Intervals between break points: 39 for five years in steps of an eighth of a year."""
    return math.ceil(spec.horizon_years * DAYS_PER_YEAR / spec.interval_days) - 1


def break_years(spec: SurvivalSpec) -> Float[Array, "breaks"]:
    """The break points, one more than there are intervals, the first at 0 and all below the horizon."""
    return jnp.arange(n_intervals(spec) + 1) * (spec.interval_days / DAYS_PER_YEAR)


def outcome(
    spec: SurvivalSpec, years: Float[Array, "batch"], event: Bool[Array, "batch"]
) -> tuple[Bool[Array, "batch intervals"], Bool[Array, "batch intervals"]]:
    """Which intervals each record survived, and in which one it had its event (none if that came after the last)."""
    breaks = break_years(spec)
    starts, ends, time = breaks[:-1], breaks[1:], years[:, None]
    counted_from = jnp.where(event[:, None], ends, (starts + ends) / 2)
    return time >= counted_from, event[:, None] & (time >= starts) & (time < ends)


def interval_logits(spec: SurvivalSpec, outputs: Float[Array, "batch intervals"]) -> Float[Array, "batch intervals"]:
    """Logit of surviving each interval, from the head's outputs."""
    return outputs + math.log(spec.survival_at_start / (1 - spec.survival_at_start))


def survival_curve(
    spec: SurvivalSpec, outputs: Float[Array, "batch intervals"], at_years: Float[Array, "times"]
) -> Float[Array, "batch times"]:
    """Chance of no event until each time, from the head's outputs: linear between break points, constant beyond."""
    at_breaks = jnp.exp(jnp.cumsum(jax.nn.log_sigmoid(interval_logits(spec, outputs)), axis=1))
    at_breaks = jnp.pad(at_breaks, ((0, 0), (1, 0)), constant_values=1)
    breaks = break_years(spec)
    curve: Array = jax.vmap(lambda values: jnp.interp(at_years, breaks, values))(at_breaks)
    return curve
