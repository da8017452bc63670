"""ECGs per second through a trained tower: ours with norms folded and not, PyTorch eager, onnxruntime.

One weight set, one batch of 12 x 5000 float32 signals, the pooled vector of each; every arm has its input in its own
layout already. The peers are PyTorch in evaluation as a user would call it, and the same model exported to ONNX, whose
runtime folds norms itself. Before anything is timed all arms must give the same unit vectors, or the benchmark stops.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.common import Arm, Report, main, measure
from benchmarks.torch_tower import TorchTower, torch_state
from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.models.folding import fold_norms
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.signal import merl

_QUICK_BATCH: Final = 16
_FULL_BATCH: Final = 64
_SAMPLES: Final = 5000
_TOLERANCE: Final = {"cpu": 1e-4, "gpu": 5e-3}
"""Largest difference of unit vectors: float32, and TF32 in every arm on a GPU."""

Embed = Callable[[], np.ndarray]
"""Pooled vectors of the batch, on the host."""


def run(quick: bool) -> Report:
    """Time per ECG of the tower in evaluation."""
    batch, backend = _QUICK_BATCH if quick else _FULL_BATCH, jax.default_backend()
    experiment = Experiment(
        name="benchmark", summary="inference", data=DataSpec(sources=(Source(cohort="none"),)), signal=merl()
    )
    towers = build_towers(experiment, vocab_size=64)
    params, stats = _used_weights(towers)
    signal = np.random.default_rng(0).uniform(size=(batch, _SAMPLES, 12)).astype(np.float32)
    peer = _PooledTower(params, stats).to("cuda" if backend == "gpu" else "cpu")
    arms = {"ecgclip_jax, norms folded": _ours(towers.folded_ecg, (fold_norms(params, stats),), signal)}
    arms["ecgclip_jax, norms apart"] = _ours(
        lambda params, stats, ecg: towers.ecg(params, stats, ecg, train=False)[0], (params, stats), signal
    )
    arms["PyTorch, eager"] = _torch(peer, signal)
    notes = []
    provider = "CUDAExecutionProvider" if backend == "gpu" else "CPUExecutionProvider"
    if provider in onnxruntime.get_available_providers():
        arms["onnxruntime"] = _onnx(peer, signal, provider)
    else:
        notes.append(f"onnxruntime is left out: this build of it has no {provider}")
    facts = _agreement(arms, _TOLERANCE[backend])
    timings = measure([Arm(name, embed, batch) for name, embed in arms.items()], quick=quick)
    facts |= {"batch": batch, "backend": backend, "threads": torch.get_num_threads()}
    return Report("embedding, ResNet-18", "ECG", timings, tuple(notes), facts)


def _used_weights(towers: Towers) -> tuple[Any, Any]:
    """Initial weights with noise on everything that starts at 0 or 1, so that no norm is the identity."""
    rng = np.random.default_rng(5)
    params, stats = jax.device_get(jax.jit(towers.init)(jax.random.key(0)))
    noisy = lambda leaf: leaf + rng.uniform(0, 0.2, leaf.shape).astype(np.float32) * (leaf.ndim == 1)  # noqa: E731
    return jax.tree.map(noisy, params["ecg"]), jax.tree.map(noisy, stats["ecg"])


def _ours(tower: Callable[..., Any], weights: tuple[Any, ...], signal: np.ndarray) -> Embed:
    batch, samples, leads = signal.shape
    ecg = EcgInput(jnp.asarray(signal), jnp.ones((batch, leads), bool), jnp.ones((batch, samples), bool))
    weights = jax.device_put(weights)
    pooled = jax.jit(lambda weights, ecg: tower(*weights, ecg).pooled)
    return lambda: np.asarray(pooled(weights, ecg))


class _PooledTower(nn.Module):
    """PyTorch's tower in evaluation, of whose outputs only the pooled vector is wanted."""

    def __init__(self, params: Any, stats: Any) -> None:
        super().__init__()
        self.tower = TorchTower(18, 12, _SAMPLES)
        self.tower.load_state_dict(torch_state(params, stats), strict=False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tower(x)["pooled"]


def _torch(model: _PooledTower, signal: np.ndarray) -> Embed:
    x = torch.tensor(signal).transpose(1, 2).contiguous().to(next(model.parameters()).device)

    def embed() -> np.ndarray:
        with torch.inference_mode():
            return model(x).cpu().numpy()

    return embed


def _onnx(model: _PooledTower, signal: np.ndarray, provider: str) -> Embed:
    x = np.ascontiguousarray(signal.transpose(0, 2, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        example = torch.tensor(x).to(next(model.parameters()).device)
        torch.onnx.export(model, (example,), path, input_names=["ecg"], output_names=["pooled"], verbose=False)
        session = onnxruntime.InferenceSession(path, providers=[provider])
    return partial(_first_output, session, {"ecg": x})


def _first_output(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> np.ndarray:
    output: np.ndarray = session.run(["pooled"], inputs)[0]
    return output


def _agreement(arms: dict[str, Embed], tolerance: float) -> dict[str, object]:
    """How far each arm's unit vectors are from the first arm's; stops where that is too far."""
    vectors = {name: embed() for name, embed in arms.items()}
    units = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}
    first, *others = units
    differences = {name: float(np.abs(units[name] - units[first]).max()) for name in others}
    for name, value in differences.items():
        if not value <= tolerance:
            raise SystemExit(f"{first} and {name} differ by {value:.2e} (at most {tolerance:.0e}); no timing")
    return {f"largest difference from {name}": f"{value:.1e}" for name, value in differences.items()}


if __name__ == "__main__":
    main(run, __doc__)
