"""Labels, measurements and survival against formulas by hand; what is unknown has no say."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.objective_world import LABELS, ROWS, make_batch, make_views, make_world

from ecgclip_jax.objectives.extras import MissingColumnError
from ecgclip_jax.objectives.survival import break_years, n_intervals, outcome, survival_curve
from ecgclip_jax.spec.objectives import SupervisedSpec, SurvivalSpec

BOTH = SupervisedSpec(labels=("a", "b"), measurements=("age_years",), regression_weight=0.5)
SPEC = SurvivalSpec()


def test_known_labels_and_measurements_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits, predicted = rng.normal(size=(ROWS, LABELS)), rng.normal(size=(ROWS, 1))
    label, age = (rng.random((ROWS, LABELS)) < 0.5).astype(float), rng.normal(size=(ROWS, 1))
    known, age_known = rng.random((ROWS, LABELS)) < 0.6, rng.random((ROWS, 1)) < 0.6
    batch = make_batch(labels=(np.where(known, label, np.nan), known), measurements=(age, age_known))
    loss, metrics = make_world(BOTH).loss_of(batch, labels=logits, measurements=predicted)
    entropies, errors = [], []
    for i in range(ROWS):
        for j in range(LABELS):
            probability = 1 / (1 + math.exp(-logits[i, j]))
            if known[i, j]:
                entropies.append(-math.log(probability if label[i, j] else 1 - probability))
        if age_known[i, 0]:
            errors.append((predicted[i, 0] - age[i, 0]) ** 2)
    assert float(metrics["loss_labels"]) == pytest.approx(np.mean(entropies), rel=1e-5)
    assert float(metrics["loss_measurements"]) == pytest.approx(np.mean(errors), rel=1e-5)
    assert float(loss) == pytest.approx(np.mean(entropies) + 0.5 * np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("spec", [BOTH, SPEC], ids=["supervised", "survival"])
def test_gradients_are_finite_and_nothing_known_is_no_loss(spec: Any) -> None:
    world = make_world(spec)
    unknown = make_batch(**{name: (value, known & False) for name, (value, known) in everything().items()})
    for batch in (make_batch(), unknown):
        gradient, _ = world.gradient(make_views(1), batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        nothing = all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
        assert nothing == (batch is unknown)
    assert float(world.loss(make_views(1), unknown)[0]) == 0


def everything() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    batch = make_batch()
    return {name: (np.asarray(batch.extras[name]), np.asarray(batch.extras_present[name])) for name in batch.extras}


def test_a_batch_without_the_column_is_refused() -> None:
    with pytest.raises(MissingColumnError, match="expects 'labels' with every record and found only event,"):
        make_world(BOTH).loss(make_views(1), make_batch(labels=None))
    with pytest.raises(MissingColumnError, match="'event'"):
        make_world(SPEC).loss(make_views(1), make_batch(event=None))


def test_intervals_are_those_of_the_released_code() -> None:
    breaks = np.arange(0.0, 365.0 * 5, 365.0 / 8)
    assert n_intervals(SPEC) == len(breaks) - 1 == 39
    np.testing.assert_allclose(np.asarray(break_years(SPEC)) * 365, breaks, rtol=1e-6)
    assert n_intervals(SurvivalSpec(horizon_years=1, interval_days=100)) == 3
    with pytest.raises(ValueError, match="holds no interval"):
        SurvivalSpec(horizon_years=0.1)


def test_outcomes_by_hand() -> None:
    """Intervals [0, 1), [1, 2), [2, 3): an event's are survived if it outlives them, a censoring's from the middle."""
    spec = SurvivalSpec(horizon_years=4, interval_days=365)
    cases = [
        (0.0, True, [0, 0, 0], [1, 0, 0]),
        (1.0, True, [1, 0, 0], [0, 1, 0]),
        (1.9, True, [1, 0, 0], [0, 1, 0]),
        (3.0, True, [1, 1, 1], [0, 0, 0]),
        (0.4, False, [0, 0, 0], [0, 0, 0]),
        (0.5, False, [1, 0, 0], [0, 0, 0]),
        (1.9, False, [1, 1, 0], [0, 0, 0]),
        (9.0, False, [1, 1, 1], [0, 0, 0]),
    ]
    years, event, survived, failed = (np.array(column) for column in zip(*cases, strict=True))
    found_survived, found_failed = outcome(spec, jnp.asarray(years, jnp.float32), jnp.asarray(event))
    np.testing.assert_array_equal(found_survived, survived.astype(bool))
    np.testing.assert_array_equal(found_failed, failed.astype(bool))


def test_likelihood_is_that_of_nnet_survival() -> None:
    """Its own form: 1 + s (p - 1) for intervals survived, 1 - f p for the one of the event."""
    rng = np.random.default_rng(1)
    years, event = rng.uniform(0, 6, ROWS), rng.random(ROWS) < 0.5
    logits = rng.normal(size=(ROWS, 39))
    breaks = np.arange(40) / 8
    known = np.ones(ROWS, bool)
    known[2] = False
    total = 0.0
    for i in np.flatnonzero(known):
        for j in range(39):
            p = 1 / (1 + math.exp(-logits[i, j]))
            start, end = breaks[j], breaks[j + 1]
            survived = years[i] >= (end if event[i] else (start + end) / 2)
            failed = event[i] and start <= years[i] < end
            total -= math.log(1 + survived * (p - 1)) + math.log(1 - failed * p)
    batch = make_batch(follow_up_years=(years, known), event=event)
    loss, metrics = make_world(SPEC).loss_of(batch, survival=logits)
    assert float(loss) == pytest.approx(total / known.sum(), rel=1e-5)
    assert float(metrics["events"]) == (event & known).sum()


def test_a_chance_at_the_start_is_added_to_every_logit() -> None:
    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(ROWS, 39))
    batch = make_batch(follow_up_years=rng.uniform(0, 6, ROWS), event=rng.random(ROWS) < 0.5)
    likely = SPEC.model_copy(update={"survival_at_start": 0.95})
    shifted, _ = make_world(likely).loss_of(batch, survival=outputs)
    plain, _ = make_world(SPEC).loss_of(batch, survival=outputs + math.log(19))
    assert float(shifted) == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(survival_curve(likely, jnp.zeros((1, 39)), jnp.asarray([0.25])), [[0.95**2]], rtol=1e-5)


def test_the_curve_multiplies_intervals_and_interpolates() -> None:
    logits = np.random.default_rng(2).normal(size=(2, 39)).astype(np.float32)
    chances = np.cumprod(1 / (1 + np.exp(-logits.astype(float))), axis=1)
    times = np.array([0, 1 / 8, 3 / 16, 39 / 8, 5], np.float32)
    expected = np.stack([[1, c[0], (c[0] + c[1]) / 2, c[38], c[38]] for c in chances])
    np.testing.assert_allclose(survival_curve(SPEC, jnp.asarray(logits), jnp.asarray(times)), expected, rtol=1e-4)
