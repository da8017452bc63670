"""SimCLR, BYOL and MoCo: values by double loops, what flows into which branch, statistics, any order of the batch."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.objective_world import ROWS, WIDTH, make_batch, make_views, make_world, unit_rows

from ecgclip_jax.contracts import EcgOutput
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import BYOLSpec, MoCoSpec, SimCLRSpec

SPECS = {
    "simclr": SimCLRSpec(projector=HeadSpec(kind="mlp", hidden=6), projector_dim=4),
    "byol": BYOLSpec(projector=HeadSpec(kind="linear"), projector_dim=6, predictor=HeadSpec(kind="mlp_norm", hidden=5)),
    "moco": MoCoSpec(projector=HeadSpec(kind="mlp_norm", hidden=6), projector_dim=4),
}


def loss_of(spec: Any, **embeddings: np.ndarray) -> float:
    return float(make_world(spec).loss_of(make_batch(), **embeddings)[0])


def cross_entropy(query: np.ndarray, candidates: list[np.ndarray], positive: np.ndarray, temperature: float) -> float:
    """-log of the positive's share; `candidates` hold it too."""
    total = sum(math.exp(float(query @ c) / temperature) for c in candidates)
    return math.log(total) - float(query @ positive) / temperature


def test_simclr_is_nt_xent() -> None:
    first, second = unit_rows(ROWS, 1), unit_rows(ROWS, 2)
    views = [*first, *second]
    expected = 0.0
    for i in range(2 * ROWS):
        others = [views[j] for j in range(2 * ROWS) if j != i]
        expected += cross_entropy(views[i], others, views[(i + ROWS) % (2 * ROWS)], 0.2) / (2 * ROWS)
    assert loss_of(SimCLRSpec(temperature=0.2), view_1=first, view_2=second) == pytest.approx(expected, rel=1e-5)


def test_byol_is_the_symmetric_squared_distance() -> None:
    p1, p2, t1, t2 = (unit_rows(ROWS, seed) for seed in range(4))
    expected = np.square(p1 - t2).sum(1).mean() + np.square(p2 - t1).sum(1).mean()
    found = loss_of(BYOLSpec(), prediction_1=p1, prediction_2=p2, target_1=t1, target_2=t2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_moco_contrasts_predictions_with_the_other_views_targets() -> None:
    p1, p2, t1, t2 = (unit_rows(ROWS, seed) for seed in range(4))
    expected = 0.0
    for queries, keys in ((p1, t2), (p2, t1)):
        expected += sum(cross_entropy(queries[i], list(keys), keys[i], 0.2) for i in range(ROWS)) / ROWS
    found = loss_of(MoCoSpec(temperature=0.2), prediction_1=p1, prediction_2=p2, target_1=t1, target_2=t2)
    assert found == pytest.approx(2 * 0.2 * expected, rel=1e-5)


def test_predictions_of_equal_branches_that_agree_have_no_byol_loss() -> None:
    x = unit_rows(ROWS, 0)
    assert loss_of(BYOLSpec(), prediction_1=x, prediction_2=x, target_1=x, target_2=x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", SPECS)
def test_gradients_are_finite_reach_every_online_parameter_and_no_target(kind: str) -> None:
    online, target = make_world(SPECS[kind]).gradient(make_views(2), make_batch())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(online))
    for name, part in {"ecg": online["ecg"], **online["objective"]}.items():
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(part)) > 0, name
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(target))


@pytest.mark.parametrize("kind", ["byol", "moco"])
def test_the_momentum_branch_has_its_own_parameters_and_statistics(kind: str) -> None:
    world, views, batch = make_world(SPECS[kind]), make_views(2), make_batch()
    embeddings, stats = world.embed(views, batch)
    slow = [(view.signal[:, :, 0] @ world.target["ecg"]["kernel"]).mean() for view in views]
    assert float(stats["target"]["ecg"]["mean"]) == pytest.approx(0.9 + 0.1 * float(sum(slow)) / 2, rel=1e-4)
    online = {"ecg": world.params["ecg"], "objective": {"projector": world.params["objective"]["projector"]}}
    other, _ = world.embed(views, batch, target=online)
    np.testing.assert_array_equal(embeddings["prediction_1"], other["prediction_1"])
    assert np.abs(embeddings["target_1"] - other["target_1"]).max() > 1e-3
    with pytest.raises(ValueError, match="momentum branch and got none"):
        world.embed(views, batch, target=None)


@pytest.mark.parametrize("kind", SPECS)
def test_neither_the_order_of_records_nor_that_of_views_matters(kind: str) -> None:
    world, views, batch = make_world(SPECS[kind]), make_views(2), make_batch()
    order = np.random.default_rng(0).permutation(ROWS)
    permuted = tuple(jax.tree.map(lambda x: x[order], view) for view in views)
    loss = float(world.loss(views, batch)[0])
    assert float(world.loss(permuted, batch)[0]) == pytest.approx(loss, rel=1e-5)
    assert float(world.loss(views[::-1], batch)[0]) == pytest.approx(loss, rel=1e-5)


def test_running_statistics_are_the_mean_over_views_from_one_start() -> None:
    world, views, batch = make_world(SPECS["simclr"]), make_views(2), make_batch()
    _, stats = world.embed(views, batch)
    means = [float((view.signal[:, :, 0] @ world.params["ecg"]["kernel"]).mean()) for view in views]
    assert float(stats["ecg"]["mean"]) == pytest.approx(0.1 * sum(means) / 2, rel=1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_views_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"compares 2 views of each ECG and got {number}"):
        make_world(SPECS["simclr"]).embed(make_views(number), make_batch())


def test_momentum_rises_to_one_along_a_half_cosine() -> None:
    rising, fixed = (make_world(BYOLSpec(momentum=0.9, momentum_to_one=flag)).objective for flag in (True, False))
    for progress, expected in ((0.0, 0.9), (0.25, 1 - 0.1 * (math.sqrt(0.5) + 1) / 2), (0.5, 0.95), (1.0, 1.0)):
        assert float(rising.momentum(jnp.asarray(progress))) == pytest.approx(expected, rel=1e-6)
        assert float(fixed.momentum(jnp.asarray(progress))) == pytest.approx(0.9)


def test_at_use_an_ecg_is_its_pooled_output() -> None:
    world = make_world(SPECS["byol"])
    x = jnp.asarray(unit_rows(3, 0) * 5, jnp.float32)
    found = world.objective.ecg_embedding(world.heads, world.params["objective"], EcgOutput(pooled=x, features=x))
    np.testing.assert_allclose(found, x / 5, rtol=1e-5)
    assert found.shape == (3, WIDTH)
