"""Norms folded into convolutions: the same function as the tower in evaluation, and one layer by hand in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.models.batch_norm import FoldedNorm, relu_of_norms
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.folding import fold_norms
from ecgclip_jax.models.functional import Tree
from ecgclip_jax.spec.encoders import ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import merl

SAMPLES = 161
TOLERANCE = 1e-5
"""Of the largest value of an output, float32. Leaving out one offset moves it by 1e-2 and more."""


def towers_of(**encoder: Any) -> Towers:
    spec = ResNet1DSpec(**({"width": 4, "pool_width": 16, "pool_heads": 2} | encoder))
    experiment = Experiment(
        name="test",
        summary="test",
        data=DataSpec(sources=(Source(cohort="none"),)),
        signal=merl(samples=SAMPLES),
        ecg_encoder=spec,
        objective=InfoNCESpec(embedding_dim=spec.pooled_width),
    )
    return build_towers(experiment, vocab_size=64)


def used_weights(towers: Towers) -> tuple[Tree, Tree]:
    """Weights and statistics as training leaves them: no norm is the identity, some scales are negative."""
    rng = np.random.default_rng(4)
    params, stats = jax.eval_shape(towers.init, jax.random.key(0))

    def drawn(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "var":
            return rng.uniform(0.01, 4, leaf.shape).astype(np.float32)
        spread = 1 / np.sqrt(max(leaf.size // leaf.shape[-1], 1)) if leaf.ndim > 1 else 1.0
        return rng.normal(0.3 * (leaf.ndim == 1), spread, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(drawn, params["ecg"]), jax.tree.map_with_path(drawn, stats["ecg"])


@pytest.mark.parametrize("encoder", [{"depth": 18}, {"depth": 50, "pooling": "mean"}], ids=["r18", "r50"])
def test_the_folded_tower_is_the_tower_in_evaluation(encoder: dict[str, Any]) -> None:
    towers = towers_of(**encoder)
    params, stats = used_weights(towers)
    before = jax.tree.map(np.copy, (params, stats))
    x = jnp.asarray(np.random.default_rng(0).normal(0.4, 0.2, (3, SAMPLES, 12)), jnp.float32)
    ecg = EcgInput(x, jnp.ones((3, 12), bool), jnp.ones((3, SAMPLES), bool))
    folded = fold_norms(params, stats)
    expected, _ = jax.jit(partial(towers.ecg, train=False))(params, stats, ecg)
    found = jax.jit(towers.folded_ecg)(folded, ecg)
    for name, value in vars(expected).items():
        size = np.abs(value).max()
        assert size > 0.01, name
        np.testing.assert_allclose(getattr(found, name), value, rtol=0, atol=TOLERANCE * size, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), before)
    assert {leaf.dtype for leaf in jax.tree.leaves(folded)} == {np.dtype(np.float32)}


def test_one_convolution_and_its_norm_by_hand() -> None:
    """Three taps, sum over taps and channels written out, all in float64."""
    rng = np.random.default_rng(1)
    kernel, x = rng.normal(size=(3, 2, 5)).astype(np.float32), rng.normal(size=(7, 2))
    scale, bias, mean = rng.normal(size=(3, 5)).astype(np.float32)
    var = rng.uniform(0.001, 9, 5).astype(np.float32)
    folded = fold_norms(
        {"conv1": {"kernel": kernel}, "norm1": {"scale": scale, "bias": bias}}, {"norm1": {"mean": mean, "var": var}}
    )
    assert set(folded) == {"conv1", "norm1"}
    assert set(folded["norm1"]) == {"bias"}

    def convolved(kernel: np.ndarray) -> np.ndarray:
        return sum(x[tap : tap + 5] @ kernel[tap].astype(np.float64) for tap in range(3))

    wide = [leaf.astype(np.float64) for leaf in (scale, bias, mean, var)]
    expected = wide[0] * (convolved(kernel) - wide[2]) / np.sqrt(wide[3] + 1e-5) + wide[1]
    found = convolved(folded["conv1"]["kernel"]) + folded["norm1"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_folded_norms_are_not_trained() -> None:
    with pytest.raises(ValueError, match="not for training"):
        relu_of_norms([FoldedNorm(2)], [jnp.zeros((1, 3, 2))], train=True)
