"""Training step: ResNet-18, attention pooling, InfoNCE and AdamW on given text embeddings, against PyTorch.

Both arms have one weight set, one batch and the same loss; the peer is eager PyTorch in its own layout, float32, all
cores. Before anything is timed, embeddings, loss and the norm of all gradients must agree, or the benchmark stops.
The text tower is left out of both: it would hide what is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.nn import functional

from benchmarks.common import Arm, Report, main, measure
from benchmarks.torch_tower import TorchTower, torch_state
from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.objectives import reference
from ecgclip_jax.objectives.contrastive import l2_normalised
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, Source
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.training.optimizer import build_optimizer

TEMPERATURE: Final = 0.07
OPTIMIZER: Final = OptimizerSpec(schedule="constant", peak_lr=1e-3, weight_decay=1e-8, decay_all=True)
_QUICK_BATCH: Final = 8
_FULL_BATCH: Final = 32
_SAMPLES: Final = 5000
EMBEDDING_TOLERANCE: Final = 1e-4
LOSS_TOLERANCE: Final = 1e-4
GRADIENT_TOLERANCE: Final = 1e-2
"""Relative; rounding may switch ReLUs near zero, which moves the gradient of either side by 1e-3."""

Step = Callable[[], tuple[np.ndarray, float, float]]
"""One update; gives the embeddings before it, the loss, and the norm of the gradients."""


def run(quick: bool) -> Report:
    """Time per ECG of one training step."""
    batch = _QUICK_BATCH if quick else _FULL_BATCH
    rng = np.random.default_rng(0)
    signal = rng.uniform(size=(batch, _SAMPLES, 12)).astype(np.float32)
    text = rng.normal(size=(batch, 256)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    experiment = Experiment(
        name="benchmark",
        summary="training step",
        data=DataSpec(sources=(Source(cohort="none"),), batch_global=batch),
        signal=merl(),
        optimizer=OPTIMIZER,
    )
    towers = build_towers(experiment, vocab_size=64)
    params, stats = (tree["ecg"] for tree in jax.jit(towers.init)(jax.random.key(0)))
    peer = torch_step(params, stats, signal, text)
    ours = jax_step(towers, params, stats, signal, text)
    facts = _agreement(ours(), peer())
    timings = measure(
        [Arm("ecgclip_jax", ours, batch), Arm("PyTorch, eager", peer, batch)], quick=quick, rounds=3 if quick else None
    )
    notes = ("no target: XLA's convolution gradients are slower on CPUs than PyTorch's; the claim belongs to the GPU",)
    return Report("training step", "ECG", timings, notes, facts | {"batch": batch, "threads": torch.get_num_threads()})


def jax_step(towers: Towers, params: Any, stats: Any, signal: np.ndarray, text: np.ndarray) -> Step:
    """Our step; the state is donated as in training."""
    batch, samples, leads = signal.shape
    ecg = EcgInput(jnp.asarray(signal), jnp.ones((batch, leads), bool), jnp.ones((batch, samples), bool))
    groups, valid = jnp.zeros((batch, 0), jnp.int32), jnp.ones(batch, bool)
    optimizer = build_optimizer(OPTIMIZER, 1000, params)
    targets = jnp.asarray(text)

    def update(params: Any, stats: Any, opt_state: Any) -> Any:
        def loss(params: Any) -> Any:
            output, moved = towers.ecg(params, stats, ecg, train=True)
            embedding = l2_normalised(output.pooled)
            scale = jnp.asarray(1 / TEMPERATURE, jnp.float32)
            value, _ = reference.infonce(embedding, targets, scale, groups, valid, direction="sum")
            return value, (embedding, moved)

        (value, (embedding, moved)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        figures = embedding, value, optax.tree.norm(gradients)
        return (optax.apply_updates(params, updates), moved, opt_state), figures

    step = jax.jit(update, donate_argnums=(0, 1, 2))
    state = jax.tree.map(jnp.copy, (params, stats, optimizer.init(params)))

    def once() -> tuple[np.ndarray, float, float]:
        nonlocal state
        state, (embedding, value, norm) = jax.block_until_ready(step(*state))
        return np.asarray(embedding), float(value), float(norm)

    return once


def torch_step(params: Any, stats: Any, signal: np.ndarray, text: np.ndarray) -> Step:
    """The peer's step, written as a PyTorch user would."""
    model = TorchTower(18, signal.shape[2], signal.shape[1])
    model.load_state_dict(torch_state(params, stats), strict=False)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIMIZER.peak_lr, eps=OPTIMIZER.epsilon, weight_decay=OPTIMIZER.weight_decay
    )
    x = torch.tensor(signal).transpose(1, 2).contiguous()
    targets, diagonal = torch.tensor(text), torch.arange(len(text))

    def once() -> tuple[np.ndarray, float, float]:
        optimizer.zero_grad()
        embedding = functional.normalize(model(x)["pooled"], dim=1)
        logits = embedding @ targets.T / TEMPERATURE
        loss = functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        optimizer.step()
        return embedding.detach().numpy(), loss.item(), norm.item()

    return once


def _agreement(ours: tuple[np.ndarray, float, float], theirs: tuple[np.ndarray, float, float]) -> dict[str, object]:
    """How far the two first steps are apart; stops where that is too far."""
    differences = {
        "largest difference of embeddings": float(np.abs(ours[0] - theirs[0]).max()),
        "relative difference of the loss": abs(ours[1] / theirs[1] - 1),
        "relative difference of the gradients' norm": abs(ours[2] / theirs[2] - 1),
    }
    limits = (EMBEDDING_TOLERANCE, LOSS_TOLERANCE, GRADIENT_TOLERANCE)
    for (name, value), limit in zip(differences.items(), limits, strict=True):
        if not value <= limit:
            raise SystemExit(f"the two steps are not the same: {name} is {value:.2e} (at most {limit:.0e}); no timing")
    return {name: f"{value:.1e}" for name, value in differences.items()}


if __name__ == "__main__":
    main(run, __doc__)
