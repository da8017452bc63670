"""Losses and gradients against PyTorch's autodiff: CLEF, NT-Xent and MoCo stated anew from their descriptions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ecgclip_jax.objectives import clef_tiles, tiled
from ecgclip_jax.objectives.clef_reference import Guidance
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.objectives.two_views import interleaved
from ecgclip_jax.spec.objectives import ClefSpec

pytestmark = pytest.mark.parity
ROWS, WIDTH, TAU = 12, 6, 0.07


def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, WIDTH)), rng.normal(size=(ROWS, WIDTH))


def compare(ours: Any, theirs: Any) -> None:
    """Value and both gradients of functions of two views, in float64."""
    with jax.enable_x64():
        value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1)))(*map(jnp.asarray, views()))
    tensors = [torch.tensor(view, requires_grad=True) for view in views()]
    expected = theirs(*tensors)
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-7)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "spec", [ClefSpec(missing_mask=False, reduction="mean"), ClefSpec()], ids=["released", "paper"]
)
def test_clef(spec: ClefSpec) -> None:
    rng = np.random.default_rng(1)
    risk, known = rng.uniform(0, 0.4, ROWS), rng.choice([0.5, 1.0], ROWS) * spec.missing_mask

    def theirs(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        z = F.normalize(torch.cat([first, second]), dim=1)
        similarity = z @ z.T
        r, q = torch.tensor(risk), torch.tensor(known)
        apart = (r[:, None] - r[None]) ** 2
        apart = spec.alpha + (1 - spec.alpha) * (apart - apart.min()) / (apart.max() - apart.min() + 1e-6)
        apart = apart * (1 - torch.eye(ROWS)) * torch.exp(-q[:, None] * q[None])
        apart = apart.tile(2, 2)
        weights = apart.softmax(dim=1)
        itself = torch.eye(2 * ROWS, dtype=torch.bool)
        partner = itself.roll(ROWS, 0)
        logits = (similarity / spec.temperature).masked_fill(itself, -torch.inf)
        terms = (logits - logits.max(dim=1, keepdim=True).values).exp()
        positive = terms[partner]
        negative = (terms * weights).masked_fill(itself | partner, 0).sum(dim=1)
        contrast = -(positive / (positive + negative + 1e-8)).log().mean()
        scaled = (similarity - similarity.min()) / (similarity.max() - similarity.min() + 1e-6)
        misfit = F.mse_loss(scaled, 1 - apart)
        return (contrast + misfit) / (2 if spec.reduction == "mean" else 1)

    def ours(first: jax.Array, second: jax.Array) -> jax.Array:
        guidance = Guidance(jnp.asarray(np.repeat(risk, 2)), jnp.asarray(np.repeat(known, 2)))
        return clef_tiles.loss(spec, interleaved(l2_normalised(first), l2_normalised(second)), guidance, tile=7)[0]

    compare(ours, theirs)


def test_nt_xent() -> None:
    def theirs(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        z = F.normalize(torch.cat([first, second]), dim=1)
        logits = (z @ z.T / TAU).masked_fill(torch.eye(2 * ROWS, dtype=torch.bool), -torch.inf)
        return F.cross_entropy(logits, torch.arange(2 * ROWS).roll(ROWS))

    def ours(first: jax.Array, second: jax.Array) -> jax.Array:
        first, second = l2_normalised(first), l2_normalised(second)
        record = jnp.repeat(jnp.arange(ROWS, dtype=jnp.int32), 2)[:, None]
        rows, columns = interleaved(first, second), interleaved(second, first)
        valid = jnp.ones(2 * ROWS, bool)
        return tiled.infonce(rows, columns, jnp.asarray(1 / TAU), record, valid, direction="mean", tile=7)[0]

    compare(ours, theirs)


def test_queries_over_keys() -> None:
    def theirs(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / TAU, torch.arange(ROWS))

    def ours(query: jax.Array, key: jax.Array) -> jax.Array:
        no_groups, valid = jnp.zeros((ROWS, 0), jnp.int32), jnp.ones(ROWS, bool)
        pair = l2_normalised(query), l2_normalised(key)
        return tiled.infonce(*pair, jnp.asarray(1 / TAU), no_groups, valid, direction="rows", tile=7)[0]

    compare(ours, theirs)
