"""Our transformer over ECGs against PyTorch's own layers, with the same weights: outputs and gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.functional import parameter_count
from ecgclip_jax.spec.encoders import HeadSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import merl

torch = pytest.importorskip("torch")
tower = pytest.importorskip("benchmarks.torch_tower")

pytestmark = pytest.mark.parity
SIGNAL, BATCH = merl(samples=1000), 3
SMALL = {"width": 48, "depth": 3, "heads": 4}


def towers_of(remat: str = "none", samples: int = SIGNAL.samples, **sizes: int) -> Towers:
    experiment = Experiment(
        name="parity",
        summary="parity",
        data=DataSpec(sources=(Source(cohort="none"),), batch_global=4),
        signal=merl(samples=samples),
        ecg_encoder=ViT1DSpec(**sizes),
        objective=InfoNCESpec(ecg_head=HeadSpec(kind="mlp")),
        memory=MemorySpec.model_validate({"ecg_remat": remat}),
    )
    return build_towers(experiment, vocab_size=64)


def torch_twin(params: dict[str, Any], **sizes: int) -> Any:
    model = tower.TorchTransformer(12, SIGNAL.samples, **sizes)
    model.load_state_dict(tower.torch_state(params, {}), strict=True)
    return model


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    """Initial ones with noise on whatever starts at 0 or 1, so that nothing can be confused."""
    params, stats = jax.jit(towers_of(**SMALL).init)(jax.random.key(3))
    assert stats == {"ecg": {}}
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: x + rng.uniform(0, 0.2, x.shape).astype(np.float32) * (x.ndim == 1), params["ecg"])


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    return np.random.default_rng(7).random((BATCH, SIGNAL.samples, 12), np.float32)


def ecg(signal: np.ndarray) -> EcgInput:
    return EcgInput(jnp.asarray(signal), jnp.ones((BATCH, 12), bool), jnp.ones((BATCH, SIGNAL.samples), bool))


def test_every_output_is_pytorchs(weights: dict[str, Any], signal: np.ndarray) -> None:
    theirs = torch_twin(weights, **SMALL)(torch.tensor(signal).transpose(1, 2))
    ours, _ = towers_of(**SMALL).ecg(weights, {}, ecg(signal), train=False)
    assert ours.tokens is not None
    assert ours.tokens.shape == (BATCH, SIGNAL.samples // 50, 48)
    for name, expected in theirs.items():
        np.testing.assert_allclose(getattr(ours, name), expected.detach().numpy(), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_gradients_are_pytorchs(weights: dict[str, Any], signal: np.ndarray, remat: str) -> None:
    towers = towers_of(remat, **SMALL)
    direction = np.random.default_rng(9).normal(size=(BATCH, 48)).astype(np.float32)

    def loss(params: dict[str, Any]) -> jax.Array:
        return (towers.ecg(params, {}, ecg(signal), train=True)[0].pooled * direction).sum()

    gradient = tower.torch_state(jax.device_get(jax.grad(loss)(weights)), {})
    model = torch_twin(weights, **SMALL)
    (model(torch.tensor(signal).transpose(1, 2))["pooled"] * torch.tensor(direction)).sum().backward()
    for name, parameter in model.named_parameters():
        expected = parameter.grad.numpy()
        np.testing.assert_allclose(
            gradient[name].numpy(), expected, atol=2e-4 * max(1.0, np.abs(expected).max()), err_msg=name
        )


def test_tiny_has_the_published_number_of_parameters() -> None:
    params, _ = jax.eval_shape(towers_of(samples=5000).init, jax.random.key(0))
    theirs = sum(p.numel() for p in tower.TorchTransformer(12, 5000, width=192, depth=12, heads=3).parameters())
    assert parameter_count(params["ecg"]) == theirs == 5_473_152
