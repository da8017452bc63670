"""Our optimizer and schedules against PyTorch itself."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ecgclip_jax.spec.experiment import OptimizerSpec
from ecgclip_jax.training.optimizer import build_optimizer, learning_rate

pytestmark = pytest.mark.parity
STEPS = 60


def test_adamw_with_warm_restarts_as_merl_uses_it() -> None:
    spec = OptimizerSpec(
        peak_lr=0.02, end_lr=1e-4, schedule="warm_restarts", restart_steps=25, weight_decay=0.1, decay_all=True
    )
    start = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    adamw = torch.optim.AdamW([theirs], lr=spec.peak_lr, weight_decay=spec.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(adamw, T_0=25, eta_min=spec.end_lr)
    ours = {"kernel": jnp.asarray(start)}
    optimizer = build_optimizer(spec, STEPS, ours)
    state = optimizer.init(ours)
    for step in range(STEPS):
        gradient = np.random.default_rng(step + 1).normal(size=(5, 4)).astype(np.float32)
        assert float(learning_rate(spec, STEPS)(jnp.asarray(step))) == pytest.approx(
            schedule.get_last_lr()[0], rel=1e-5
        )
        theirs.grad = torch.tensor(gradient)
        adamw.step()
        schedule.step()
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours["kernel"], theirs.detach().numpy(), rtol=1e-4, atol=2e-6)
