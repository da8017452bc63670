"""Heads: shapes, parameters, and what each kind computes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ecgclip_jax.models.functional import parameter_count
from ecgclip_jax.models.heads import Head
from ecgclip_jax.spec.encoders import HeadSpec

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)


def test_no_head_changes_nothing_and_has_no_parameters() -> None:
    head = Head(HeadSpec(kind="none"), 6, 6)
    params = head.init(jax.random.key(0))
    assert params == {}
    np.testing.assert_array_equal(head.apply(params, X), X)
    with pytest.raises(ValueError, match="cannot turn 6 into 4"):
        Head(HeadSpec(kind="none"), 6, 4)


def test_linear_head() -> None:
    head = Head(HeadSpec(kind="linear"), 6, 4, bias=False)
    params = head.init(jax.random.key(0))
    assert parameter_count(params) == 24
    np.testing.assert_allclose(head.apply(params, X), np.asarray(X) @ params["linear"]["kernel"], rtol=1e-5)


def test_mlp_head_is_linear_exact_gelu_linear() -> None:
    head = Head(HeadSpec(kind="mlp", hidden=5), 6, 4)
    params = head.init(jax.random.key(0))
    assert parameter_count(params) == (6 * 5 + 5) + (5 * 4 + 4)
    hidden = np.asarray(X) @ params["linear1"]["kernel"] + params["linear1"]["bias"]
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    expected = hidden @ params["linear2"]["kernel"] + params["linear2"]["bias"]
    np.testing.assert_allclose(head.apply(params, X), expected, atol=1e-6)


def test_merl_text_projection_has_the_published_size() -> None:
    params = jax.eval_shape(Head(HeadSpec(kind="mlp", hidden=256), 768, 256).init, jax.random.key(0))
    assert parameter_count(params) == 262_656


@pytest.mark.parametrize(("groups", "norm_output"), [(1, False), (2, False), (2, True)])
def test_mlp_norm_head_normalises_each_group_of_the_batch_by_itself(groups: int, norm_output: bool) -> None:
    x = np.random.default_rng(1).normal(size=(8, 6))
    head = Head(HeadSpec(kind="mlp_norm", hidden=5, norm_output=norm_output), 6, 4, norm_groups=groups)
    params = jax.jit(head.init)(jax.random.key(0))
    assert parameter_count(params) == (6 * 5 + 5) + 2 * 5 + (5 * 4 + 4)
    params["norm"] = {"scale": jnp.arange(1.0, 6), "bias": jnp.linspace(-1, 1, 5)}
    hidden = x @ params["linear1"]["kernel"] + params["linear1"]["bias"]
    parts = [(part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5) for part in np.split(hidden, groups)]
    hidden = np.maximum(np.concatenate(parts) * params["norm"]["scale"] + params["norm"]["bias"], 0)
    expected = hidden @ params["linear2"]["kernel"] + params["linear2"]["bias"]
    if norm_output:
        parts = [(part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5) for part in np.split(expected, groups)]
        expected = np.concatenate(parts)
    found = jax.jit(head.apply)(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_a_normalising_head_has_a_normalised_output() -> None:
    with pytest.raises(ValueError, match="belongs to heads of kind 'mlp_norm', not 'linear'"):
        HeadSpec(kind="linear", norm_output=True)


def test_micro_batches_of_an_mlp_norm_head_are_its_groups() -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(32, 6)), jnp.float32)
    whole, part = (Head(HeadSpec(kind="mlp_norm", hidden=5), 6, 4, norm_groups=groups) for groups in (4, 2))
    params = jax.jit(whole.init)(jax.random.key(0))
    parts = [jax.jit(part.apply)(params, half) for half in jnp.split(x, 2)]
    np.testing.assert_allclose(np.concatenate(parts), jax.jit(whole.apply)(params, x), atol=1e-5)
