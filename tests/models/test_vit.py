"""The transformer over ECGs by hand: what is a token, where it stands, and which of mean and norm comes first."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from ecgclip_jax.contracts import EcgInput, EcgOutput
from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.vit1d import LAYER_NORM_EPSILON, ViT1D
from ecgclip_jax.spec.encoders import ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, Source
from ecgclip_jax.spec.objectives import SupervisedSpec
from ecgclip_jax.spec.signal import merl

BATCH, SAMPLES, LEADS, PATCH, WIDTH = 2, 40, 3, 10, 8
Windows = Literal["all_leads", "each_lead"]


def tower(windows: Windows, **changes: Any) -> PureModule:
    spec = ViT1DSpec(patch_samples=PATCH, windows=windows, width=WIDTH, depth=2, heads=2, **changes)
    return PureModule(lambda rngs: ViT1D(spec, leads=LEADS, samples=SAMPLES, rngs=rngs))


def ecg(signal: np.ndarray) -> EcgInput:
    n, samples, leads = signal.shape
    return EcgInput(jnp.asarray(signal), jnp.ones((n, leads), bool), jnp.ones((n, samples), bool))


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, SAMPLES, LEADS)).astype(np.float32)


def silent(params: Tree) -> Tree:
    """Blocks that add nothing to their input."""
    quiet = {
        name: block | {part: jax.tree.map(jnp.zeros_like, block[part]) for part in ("linear2",)}
        | {"attention": block["attention"] | {"out": jax.tree.map(jnp.zeros_like, block["attention"]["out"])}}
        for name, block in params.items()
        if name.startswith("block")
    }  # fmt: skip
    return params | quiet


def normalised(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON)


def run(module: PureModule, params: Tree, signal: np.ndarray) -> EcgOutput:
    output, stats = module.apply(params, {}, ecg(signal), train=True)
    assert stats == {}
    return output


def test_a_token_is_a_window_of_all_leads_and_the_mean_is_normalised(signal: np.ndarray) -> None:
    module = tower("all_leads")
    params = silent(module.init(jax.random.key(1))[0])
    output = run(module, params, signal)
    kernel, positions = np.asarray(params["patch"]["kernel"]), np.asarray(params["positions"])
    assert "bias" not in params["patch"]
    tokens = np.stack([[w.reshape(-1) @ kernel for w in np.split(e, SAMPLES // PATCH)] for e in signal]) + positions
    np.testing.assert_allclose(output.tokens, tokens, atol=1e-5)
    np.testing.assert_allclose(output.features, normalised(tokens.mean(axis=1)), atol=1e-5)
    assert output.pooled is output.features is output.pooled_mean


def test_a_token_is_a_window_of_one_lead_and_tokens_are_normalised(signal: np.ndarray) -> None:
    module = tower("each_lead")
    params = silent(module.init(jax.random.key(1))[0])
    output = run(module, params, signal)
    kernel, bias = np.asarray(params["patch"]["kernel"]), np.asarray(params["patch"]["bias"])
    tokens = np.stack([
        [
            window @ kernel + bias + params["lead_positions"][lead, 0] + params["positions"][time]
            for lead in range(LEADS)
            for time, window in enumerate(np.split(record[:, lead], SAMPLES // PATCH))
        ]
        for record in signal
    ])  # fmt: skip
    np.testing.assert_allclose(output.tokens, normalised(tokens), atol=1e-5)
    np.testing.assert_allclose(output.features, normalised(tokens).mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("windows", ["all_leads", "each_lead"])
def test_every_sample_is_seen_and_records_are_apart(windows: Windows, signal: np.ndarray) -> None:
    module = tower(windows)
    params, _ = module.init(jax.random.key(1))

    def first(signal: jax.Array) -> jax.Array:
        return module.apply(params, {}, ecg(signal), train=True)[0].features[0] @ jnp.arange(WIDTH)

    by_sample = np.asarray(jax.grad(first)(jnp.asarray(signal)))
    assert (by_sample[0] != 0).all()
    assert not by_sample[1].any()


def test_half_precision_inside_full_precision_outside(signal: np.ndarray) -> None:
    params, _ = tower("all_leads").init(jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    full, half = (run(tower("all_leads", dtype=dtype), params, signal) for dtype in ("float32", "bfloat16"))
    assert half.tokens is not None
    assert half.tokens.dtype == jnp.bfloat16
    assert half.features.dtype == jnp.float32
    assert 0 < np.abs(np.asarray(half.features - full.features)).max() < 0.1


def experiment(encoder: ViT1DSpec, **changes: Any) -> Experiment:
    data = DataSpec(sources=(Source(cohort="none"),), batch_global=4)
    parts = {"signal": merl(), "text_encoder": None, "objective": SupervisedSpec(measurements=("age_years",))}
    return Experiment(name="t", summary="t", data=data, ecg_encoder=encoder, **(parts | changes))


def test_what_cannot_be_is_refused_with_the_setting_to_change() -> None:
    refused = partial(pytest.raises, ValidationError)
    with refused(match=r"patch_samples 48 must divide signal\.samples 5000"):
        experiment(ViT1DSpec(patch_samples=48))
    with refused(match="width 100 must divide by heads 3"):
        ViT1DSpec(width=100)
    with refused(match="'convolutions': a transformer has none; use 'blocks'"):
        experiment(ViT1DSpec(), memory=MemorySpec(ecg_remat="convolutions"))
    with pytest.raises(ValueError, match="windows of 50 samples do not fill 120"):
        PureModule(lambda rngs: ViT1D(ViT1DSpec(), leads=1, samples=120, rngs=rngs))
