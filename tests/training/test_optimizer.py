"""AdamW and schedules against PyTorch's formulas written out, and the path rules over a parameter tree."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecgclip_jax.parallel.rules import RuleError, leaf_paths
from ecgclip_jax.spec.experiment import OptimizerSpec
from ecgclip_jax.training.optimizer import build_optimizer, frozen_mask, learning_rate

PARAMS = {
    "ecg": {"stem": {"kernel": jnp.full((3, 2), 0.5)}, "norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}},
    "text": {"word": {"embedding": jnp.full((4, 2), -0.3)}},
    "objective": {"log_scale": jnp.asarray(2.0)},
}


def gradients(step: int) -> dict:
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)


def run(spec: OptimizerSpec, steps: int = 8) -> dict:
    optimizer, params = build_optimizer(spec, steps, PARAMS), PARAMS
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def torch_adamw(spec: OptimizerSpec, decays: bool, path: str, steps: int = 8) -> np.ndarray:
    """`torch.optim.AdamW` (documentation of PyTorch 2): decay first, then the step; float64."""
    leaf = leaf_paths(PARAMS).index(path)
    p = np.asarray(jax.tree.leaves(PARAMS)[leaf], np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step in range(steps):
        lr = float(learning_rate(spec, steps)(jnp.asarray(step)))
        g = np.asarray(jax.tree.leaves(gradients(step))[leaf], np.float64)
        p = p * (1 - lr * (spec.weight_decay if decays else 0))
        m = spec.beta1 * m + (1 - spec.beta1) * g
        v = spec.beta2 * v + (1 - spec.beta2) * g * g
        corrected_m, corrected_v = m / (1 - spec.beta1 ** (step + 1)), v / (1 - spec.beta2 ** (step + 1))
        p = p - lr * corrected_m / (np.sqrt(corrected_v) + spec.epsilon)
    return p


@pytest.mark.parametrize("decay_all", [False, True])
def test_adamw_is_pytorchs(decay_all: bool) -> None:
    spec = OptimizerSpec(peak_lr=0.02, warmup_steps=2, weight_decay=0.3, epsilon=1e-3, decay_all=decay_all)
    found = dict(zip(leaf_paths(PARAMS), jax.tree.leaves(run(spec)), strict=True))
    for path, value in found.items():
        expected = torch_adamw(spec, decay_all or path.endswith(("kernel", "embedding")), path)
        np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-6, err_msg=path)


def test_the_norm_of_all_gradients_together_is_clipped() -> None:
    spec = OptimizerSpec(
        peak_lr=0.1, schedule="constant", weight_decay=0, epsilon=10.0, beta1=0, beta2=0, clip_norm=0.1
    )
    optimizer = build_optimizer(spec, 10, PARAMS)
    grads = gradients(0)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    scale = 0.1 / math.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    expected = jax.tree.map(lambda g: -0.1 * g * scale / (jnp.abs(g * scale) + 10), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), updates, expected)


def rates(spec: OptimizerSpec, total: int) -> list[float]:
    return [float(learning_rate(spec, total)(jnp.asarray(step))) for step in range(total)]


def test_warm_restarts_follow_pytorchs_formula() -> None:
    spec = OptimizerSpec(peak_lr=0.1, end_lr=0.01, schedule="warm_restarts", restart_steps=5)
    expected = [0.01 + 0.09 * (1 + math.cos(math.pi * (step % 5) / 5)) / 2 for step in range(12)]
    assert rates(spec, 12) == pytest.approx(expected, rel=1e-6)


def test_cosine_with_warm_up() -> None:
    spec = OptimizerSpec(peak_lr=0.1, end_lr=0.0, warmup_steps=4)
    expected = [0.025, 0.05, 0.075, 0.1] + [0.1 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates(spec, 10) == pytest.approx(expected, rel=1e-6)


def test_constant() -> None:
    assert rates(OptimizerSpec(peak_lr=0.1, schedule="constant"), 3) == pytest.approx([0.1] * 3)


def test_frozen_parameters_do_not_move_and_have_no_memory() -> None:
    spec = OptimizerSpec(peak_lr=0.1, frozen=("^text/", "log_scale"))
    params = run(spec)
    np.testing.assert_array_equal(params["text"]["word"]["embedding"], PARAMS["text"]["word"]["embedding"])
    assert float(params["objective"]["log_scale"]) == 2.0
    assert float(params["ecg"]["norm"]["bias"][0]) != 0.0
    memory = jax.tree.leaves(build_optimizer(spec, 8, PARAMS).init(PARAMS))
    trained = sum(p.size for p in jax.tree.leaves(PARAMS["ecg"]))
    assert sum(m.size for m in memory if m.ndim) == 2 * trained


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("^texts/",), r"optimizer\.frozen: '\^texts/' is the first match of no parameter"),
        ((".",), "covers every parameter"),
    ],
)
def test_freezing_that_makes_no_sense_is_an_error(frozen: tuple[str, ...], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        frozen_mask(OptimizerSpec(frozen=frozen), PARAMS)


def test_a_parameter_of_an_unknown_kind_needs_a_decay_rule() -> None:
    with pytest.raises(RuleError, match=r"weight decay rules: no rule covers ecg/stem/gate"):
        build_optimizer(OptimizerSpec(), 8, {"ecg": {"stem": {"gate": jnp.ones(2)}}})
