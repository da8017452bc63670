"""CLEF against a double loop in float64, the tiles against the global view on 1, 2 and 8 devices, missing metadata."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from support.objective_world import ROWS, make_batch, make_views, make_world, unit_rows

from ecgclip_jax.objectives import clef_reference, clef_tiles
from ecgclip_jax.objectives.clef_reference import Guidance
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.objectives.extras import MissingColumnError
from ecgclip_jax.spec.objectives import ClefSpec

PAPER = ClefSpec(contrast_weight=0.7)
RELEASED = ClefSpec(missing_mask=False, reduction="mean")
BATCH = 24
"""48 rows: 6 on each of 8 devices."""


def by_loops(z: np.ndarray, risk: np.ndarray, known: np.ndarray, alpha: float, tau: float) -> tuple[float, float]:
    """(L_w, L_d) of views of which 2i and 2i + 1 belong to record i, as section 1.2 of our notes tells it."""
    n = len(z)
    cosine = [[float(z[i] @ z[j]) for j in range(n)] for i in range(n)]
    largest = max((risk[i] - risk[j]) ** 2 for i in range(n) for j in range(n))
    low, high = min(map(min, cosine)), max(map(max, cosine))

    def distance(i: int, j: int) -> float:
        if i // 2 == j // 2:
            return 0.0
        scaled = (risk[i] - risk[j]) ** 2 / (largest + 1e-6)
        return (alpha + (1 - alpha) * scaled) * math.exp(-known[i] * known[j])

    contrast = misfit = 0.0
    for i in range(n):
        partner = i + 1 if i % 2 == 0 else i - 1
        normaliser = sum(math.exp(distance(i, j)) for j in range(n))
        shift = max(cosine[i][j] / tau for j in range(n) if j != i)
        negatives = sum(
            math.exp(distance(i, j)) / normaliser * math.exp(cosine[i][j] / tau - shift)
            for j in range(n)
            if j not in (i, partner)
        )
        positive = math.exp(cosine[i][partner] / tau - shift)
        contrast -= math.log(positive / (positive + negatives + 1e-8)) / n
        for j in range(n):
            misfit += ((cosine[i][j] - low) / (high - low + 1e-6) - (1 - distance(i, j))) ** 2 / n**2
    return contrast, misfit


def rows_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1, first.shape[1])


@pytest.mark.parametrize("spec", [PAPER, RELEASED], ids=["paper", "released"])
def test_loss_equals_the_double_loop(spec: ClefSpec) -> None:
    first, second = unit_rows(ROWS, 1), unit_rows(ROWS, 2)
    present = np.ones(ROWS, bool)
    present[[1, 4]] = False
    rng = np.random.default_rng(0)
    risk, completeness = rng.uniform(0.05, 0.4, ROWS), rng.choice([0.5, 1.0], ROWS)
    batch = make_batch(risk=(np.where(present, risk, np.nan), present), risk_completeness=completeness)
    loss, metrics = make_world(spec).loss_of(batch, view_1=first, view_2=second)
    # A missing risk: 0 where nothing masks it (released code), the mean of the known ones with the mask (ours).
    stand_in = risk[present].mean() if spec.missing_mask else 0.0
    risk, known = np.where(present, risk, stand_in), completeness * spec.missing_mask
    contrast, misfit = by_loops(rows_of(first, second), np.repeat(risk, 2), np.repeat(known, 2), spec.alpha, 0.07)
    assert float(metrics["loss_weighted"]) == pytest.approx(contrast, rel=1e-5)
    assert float(metrics["loss_distance"]) == pytest.approx(misfit, rel=1e-5)
    total = 0.7 * contrast + misfit if spec is PAPER else (contrast + misfit) / 2
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert float(metrics["risk_known"]) == pytest.approx(6 / 8)


def arguments(dtype: str) -> tuple[np.ndarray, Guidance]:
    rng = np.random.default_rng(3)
    risk, known = rng.uniform(0, 0.3, BATCH), rng.choice([0.25, 1.0], BATCH)
    views = rng.normal(size=(2 * BATCH, 6)).astype(dtype)
    return views, Guidance(*(np.repeat(column, 2).astype(dtype) for column in (risk, known)))


def value_and_gradient(loss: Any, spec: ClefSpec) -> Any:
    """By the views before they are normalised: how each device rounds a vector's own length has no say then."""
    return jax.jit(jax.value_and_grad(lambda views, guidance: loss(spec, l2_normalised(views), guidance), has_aux=True))


@pytest.mark.parametrize(
    ("dtype", "n_devices", "tile"), [("float64", 0, 7), ("float64", 2, 12), ("float64", 8, 5), ("float32", 1, 1024)]
)
def test_tiles_equal_the_global_view(dtype: str, n_devices: int, tile: int) -> None:
    """Tiles that do and do not divide a device's rows, with and without a mesh; value, both parts, all gradients."""
    relative = {"float32": 1e-5, "float64": 1e-10}[dtype]
    with jax.enable_x64(dtype == "float64"):
        views, guidance = arguments(dtype)
        (expected, parts), by_views = value_and_gradient(clef_reference.loss, PAPER)(views, guidance)
        axes: tuple[str, ...] = ()
        if n_devices:
            axes = ("data",)
            mesh = jax.make_mesh((n_devices,), axes, devices=jax.devices()[:n_devices], axis_types=(AxisType.Auto,))
            placed = NamedSharding(mesh, PartitionSpec("data"))
            views, guidance = jax.device_put((views, guidance), placed)
        tiles = value_and_gradient(partial(clef_tiles.loss, axes=axes, tile=tile), PAPER)
        if n_devices:
            with jax.set_mesh(mesh):
                (found, found_parts), found_gradient = tiles(views, guidance)
        else:
            (found, found_parts), found_gradient = tiles(views, guidance)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=relative)
        for name in parts:
            np.testing.assert_allclose(found_parts[name], parts[name], rtol=relative)
        difference = np.linalg.norm(np.asarray(found_gradient) - np.asarray(by_views))
        assert difference <= relative * np.linalg.norm(by_views)


def test_no_matrix_of_all_pairs_is_kept() -> None:
    """From the compiled program: a quarter of one such matrix for all that is not an argument or the gradient."""
    rows = 4096
    views, guidance = jax.ShapeDtypeStruct((rows, 16), "float32"), [jax.ShapeDtypeStruct((rows,), "float32")] * 2
    program = value_and_gradient(partial(clef_tiles.loss, tile=256), PAPER).lower(views, Guidance(*guidance)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * rows**2 / 4


def test_neither_the_order_of_records_nor_that_of_views_matters() -> None:
    world, views, batch = make_world(PAPER), make_views(2), make_batch()
    order = np.random.default_rng(0).permutation(ROWS)
    permuted = tuple(jax.tree.map(lambda x: x[order], view) for view in views)
    extras = {name: np.asarray(values)[order] for name, values in batch.extras.items()}
    loss = float(world.loss(views, batch)[0])
    assert float(world.loss(permuted, make_batch(**extras))[0]) == pytest.approx(loss, rel=1e-5)
    assert float(world.loss(views[::-1], batch)[0]) == pytest.approx(loss, rel=1e-5)
    assert float(world.loss(permuted, batch)[0]) != pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("spec", [PAPER, RELEASED], ids=["paper", "released"])
def test_no_known_risk_in_a_batch_is_finite_and_sets_all_patients_equally_apart(spec: ClefSpec) -> None:
    world, views = make_world(spec), make_views(2)
    unknown = np.full(ROWS, np.nan), np.zeros(ROWS, bool)
    blind = make_batch(risk=unknown, risk_completeness=np.zeros(ROWS))
    gradient, _ = world.gradient(views, blind)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    alike = make_batch(risk=np.full(ROWS, 0.1), risk_completeness=np.zeros(ROWS))
    assert float(world.loss(views, blind)[0]) == pytest.approx(float(world.loss(views, alike)[0]), rel=1e-6)


def test_a_far_risk_is_pushed_away_harder() -> None:
    """Two negatives as close to a view as each other: the one of the distant risk has the larger gradient."""
    z = jnp.asarray(np.eye(6)[[0, 0, 1, 2, 3, 4]] + 0.1, jnp.float32)
    guidance = Guidance(jnp.asarray([0.0, 0.0, 0.05, 0.05, 0.3, 0.3]), jnp.zeros(6))
    spec = ClefSpec(distance_weight=0.0, temperature=0.5)
    push = jax.jit(jax.grad(lambda z: clef_reference.loss(spec, l2_normalised(z), guidance)[0]))(z) @ z[0]
    assert float(push[4]) > float(push[2]) > 0


def test_missing_columns_are_refused() -> None:
    world, views = make_world(PAPER), make_views(2)
    for name in ("risk", "risk_completeness"):
        with pytest.raises(MissingColumnError, match=f"expects '{name}'"):
            world.loss(views, make_batch(**{name: None}))
    assert np.isfinite(make_world(RELEASED).loss(views, make_batch(risk_completeness=None))[0])
