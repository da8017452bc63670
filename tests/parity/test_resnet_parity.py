"""Our ECG tower against PyTorch models written from the published description, with the same weights."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import EcgInput, EcgOutput
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.heads import Head
from ecgclip_jax.spec.encoders import HeadSpec, ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.signal import SignalSpec, ecgclip, merl

torch = pytest.importorskip("torch")
nn = torch.nn
TorchTower, torch_state = (
    getattr(pytest.importorskip("benchmarks.torch_tower"), n) for n in ("TorchTower", "torch_state")
)

pytestmark = pytest.mark.parity

OUTPUT_TOLERANCE = 1e-4


def towers_of(depth: int, signal: SignalSpec, norm_groups: int = 1) -> Towers:
    experiment = Experiment(
        name="parity",
        summary="parity",
        data=DataSpec(sources=(Source(cohort="none"),), batch_global=4),
        signal=signal,
        ecg_encoder=ResNet1DSpec(depth=depth, norm_groups=norm_groups),
    )
    return build_towers(experiment, vocab_size=64)


def random_weights(towers: Towers) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initial weights with noise on everything that starts at 0 or 1, so that nothing can be confused."""
    params, stats = jax.jit(towers.init)(jax.random.key(3))
    rng = np.random.default_rng(5)
    noisy = lambda leaf: leaf + rng.uniform(0.0, 0.2, leaf.shape).astype(np.float32) * (leaf.ndim == 1)  # noqa: E731
    return jax.tree.map(noisy, params["ecg"]), jax.tree.map(noisy, stats["ecg"])


def ecg_batch(signal: SignalSpec, batch: int = 4) -> EcgInput:
    """Smooth signals in [0, 1] whose level and size differ between records, as after min-max."""
    rng = np.random.default_rng(7)
    walk = rng.normal(size=(batch, signal.samples, len(signal.leads))).cumsum(axis=1)
    walk = (walk - walk.min(axis=(1, 2), keepdims=True)) / np.ptp(walk, axis=(1, 2), keepdims=True)
    x = jnp.asarray(walk, jnp.float32)
    return EcgInput(x, jnp.ones((batch, len(signal.leads)), bool), jnp.ones((batch, signal.samples), bool))


def torch_twin(depth: int, signal: SignalSpec, params: dict[str, Any], stats: dict[str, Any]) -> Any:
    model = TorchTower(depth, len(signal.leads), signal.samples)
    missing, unexpected = model.load_state_dict(torch_state(params, stats), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model


def torch_input(ecg: EcgInput) -> Any:
    return torch.tensor(np.asarray(ecg.signal)).transpose(1, 2).contiguous()


def assert_same_outputs(ours: EcgOutput, theirs: dict[str, Any]) -> None:
    for name, value in theirs.items():
        expected = value.detach().numpy()
        difference = np.abs(np.asarray(getattr(ours, name)) - expected).max()
        # The outputs are of size 1; the map's values reach 15, where PyTorch is 2e-4 from its own float64 result.
        size = max(1.0, np.abs(expected).max()) if name == "tokens" else 1.0
        assert difference <= OUTPUT_TOLERANCE * size, f"{name}: {difference:.2e}"


def assert_same_statistics(ours: dict[str, Any], states: list[dict[str, Any]], params: dict[str, Any]) -> None:
    for name, value in torch_state(params, ours).items():
        if "running" in name:
            theirs = sum(state[name] for state in states) / len(states)
            np.testing.assert_allclose(value.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def as_runs_compile(ecg: Any) -> Any:
    """Jitted with the compiler's defaults: the agreement is that of runs, not of the other tests' quick programs."""
    options = {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
        "xla_cpu_use_fusion_emitters": True,
    }
    return jax.jit(ecg, static_argnames="train", compiler_options=options)


@pytest.mark.parametrize(
    ("depth", "signal"),
    [(18, merl()), (34, ecgclip(samples=1024)), (50, ecgclip(samples=1001))],
    ids=["r18_12_leads", "r34_8_leads", "r50_odd_length"],
)
def test_outputs_and_running_statistics_equal_pytorch(depth: int, signal: SignalSpec) -> None:
    towers = towers_of(depth, signal)
    params, stats = random_weights(towers)
    model, ecg = torch_twin(depth, signal, params, stats), ecg_batch(signal)
    apply = as_runs_compile(towers.ecg)

    evaluated, unchanged = apply(params, stats, ecg, train=False)
    assert_same_outputs(evaluated, model.eval()(torch_input(ecg)))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), unchanged, stats)))

    trained, moved = apply(params, stats, ecg, train=True)
    assert_same_outputs(trained, model.train()(torch_input(ecg)))
    assert_same_statistics(moved, [model.state_dict()], params)


def test_two_norm_groups_equal_pytorch_on_two_half_batches() -> None:
    signal = merl(samples=1000)
    towers = towers_of(18, signal, norm_groups=2)
    params, stats = random_weights(towers)
    ecg = ecg_batch(signal)
    first = torch_twin(18, signal, params, stats).train()
    second = copy.deepcopy(first)
    halves = [model(x) for model, x in zip((first, second), torch_input(ecg).split(2), strict=True)]

    ours, moved = as_runs_compile(towers.ecg)(params, stats, ecg, train=True)
    assert_same_outputs(ours, {name: torch.cat([half[name] for half in halves]) for name in halves[0]})
    # PyTorch moves each replica's statistics; the mean of the two moves is our single move.
    assert_same_statistics(moved, [first.state_dict(), second.state_dict()], params)


def away_from_the_kink(params: dict[str, Any]) -> dict[str, Any]:
    """Norms whose biases put every input of a ReLU eight standard deviations from zero, half of the units on.

    Near zero a rounding error switches units, and a single one moves gradients by 1e-3 (PyTorch's own float32 ones
    too, against its float64); here the comparison is about the formulas.
    """

    def place(path: Any, leaf: jax.Array) -> jax.Array:
        *modules, leaf_name = [entry.key for entry in path]
        norm = modules[-1]
        if "norm" not in norm:
            return leaf
        if leaf_name == "scale":
            return leaf * 0.5
        joins_shortcut = norm in ("norm2", "shortcut_norm")
        return jnp.where(joins_shortcut | (jnp.arange(leaf.size) % 2 == 0), 4.8, -4.8)

    return jax.tree.map_with_path(place, params)


def test_gradients_equal_pytorch() -> None:
    signal = merl(samples=1000)
    towers = towers_of(18, signal)
    params, stats = random_weights(towers)
    params = away_from_the_kink(params)
    ecg, model = ecg_batch(signal), torch_twin(18, signal, params, stats).train()
    weights = np.random.default_rng(11).normal(size=(4, 256)).astype(np.float32)

    def objective(params: dict[str, Any]) -> jax.Array:
        output, _ = towers.ecg(params, stats, ecg, train=True)
        return (output.pooled * weights).sum() + (output.pooled_mean * weights).sum()

    ours = torch_state(jax.jit(jax.grad(objective))(params), {})
    output = model(torch_input(ecg))
    ((output["pooled"] + output["pooled_mean"]) * torch.tensor(weights)).sum().backward()
    theirs = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        a, b = ours[name].numpy(), gradient.numpy()
        if name.endswith("in_proj_bias"):
            # The softmax removes the key's bias: its gradient is zero here and rounding noise in PyTorch.
            a, b = np.delete(a, np.s_[256:512]), np.delete(b, np.s_[256:512])
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b), name


@pytest.mark.parametrize("bias", [True, False])
def test_heads_equal_pytorch(bias: bool) -> None:
    x = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    mlp, linear = Head(HeadSpec(kind="mlp", hidden=32), 48, 16, bias), Head(HeadSpec(kind="linear"), 48, 16, bias)
    theirs = {"mlp": nn.Sequential(nn.Linear(48, 32, bias), nn.GELU(), nn.Linear(32, 16, bias)),
              "linear": nn.Linear(48, 16, bias)}  # fmt: skip
    layers = {"mlp": {"linear1": theirs["mlp"][0], "linear2": theirs["mlp"][2]}, "linear": {"linear": theirs["linear"]}}
    for head, name in ((mlp, "mlp"), (linear, "linear")):
        params = head.init(jax.random.key(1))
        for part, layer in layers[name].items():
            layer.weight.data = torch.tensor(np.asarray(params[part]["kernel"]).T.copy())
            if bias:
                layer.bias.data = torch.tensor(np.asarray(params[part]["bias"]))
        expected = theirs[name](torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(head.apply(params, jnp.asarray(x)), expected, atol=1e-5)
