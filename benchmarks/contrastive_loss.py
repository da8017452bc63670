"""Contrastive loss, forward and backward: tiles against the global view and OpenCLIP's gathered loss in PyTorch.

InfoNCE (mean of both directions) of float32 embeddings of width 512, with the gradients of both towers' embeddings and
of the scale. Memory is what is needed beside inputs and gradients: XLA's compiled temporary bytes, which need no run,
and for PyTorch the rise of the resident set in a process of its own, continued with the square of the batch where it
would not fit. Eight devices are eight forced CPU devices; the figure is for each. Before anything is timed, losses and
gradients must agree. PyTorch's loss is written from the description of OpenCLIP's: every rank holds all logits.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from torch.nn import functional

from benchmarks.common import Arm, Report, Timing, main, measure
from ecgclip_jax.objectives import reference, tiled

DIM: Final = 512
SCALE: Final = 1 / 0.07
DEVICES: Final = 8
AXES: Final = ("data", "fsdp")
MIB: Final = 2**20
BATCHES: Final = (1_024, 4_096, 8_192, 16_384, 65_536, 262_144)
QUICK_BATCHES: Final = (1_024, 65_536)
TIMED_BATCHES: Final = (8_192, 1_024, 4_096, 16_384)
"""The first one's times are the report's; the others stand among its facts."""
QUICK_TIMED_BATCHES: Final = (2_048,)
TORCH_BATCH: Final = 8_192
"""Largest batch of which PyTorch's memory is measured; beyond it grows with the square."""
TOLERANCE: Final = 1e-5
"""Norm-relative, of the loss and of each gradient."""

Losses = tuple[float, np.ndarray, np.ndarray, float]
"""Loss and its gradients by both embeddings and the scale."""


def run(quick: bool) -> Report:
    """Time of one forward and backward pass, and memory at growing batches."""
    facts: dict[str, object] = {}
    for batch in QUICK_BATCHES if quick else BATCHES:
        one, ring = (_compiled_mib(batch, n_devices) for n_devices in (1, DEVICES))
        facts[f"B = {batch:,}: MiB, one device"] = _row(one | {"PyTorch": _torch_mib(batch)})
        facts[f"B = {batch:,}: MiB, each of {DEVICES} devices"] = _row(ring)
    first, *others = QUICK_TIMED_BATCHES if quick else TIMED_BATCHES
    timings = _timings(first, quick)
    for batch in others:
        more = _timings(batch, quick)
        facts[f"B = {batch:,}: ms"] = _row({timing.name: timing.median_s * 1e3 for timing in more})
    facts |= {"batch of the times above": first, "tile": tiled.TILE, "threads": torch.get_num_threads()}
    return Report("contrastive loss", "step", timings, facts=facts)


def _row(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())


def _jax_losses(batch: int, axes: tuple[str, ...] = ()) -> dict[str, Callable[..., Any]]:
    """Value and gradients of our two forms."""
    groups, valid = jnp.zeros((batch, 0), jnp.int32), jnp.ones(batch, bool)

    def differentiated(infonce: Callable[..., Any]) -> Callable[..., Any]:
        def loss(ecg: jax.Array, text: jax.Array, scale: jax.Array) -> jax.Array:
            value: jax.Array = infonce(ecg, text, scale, groups, valid, direction="mean")[0]
            return value

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))

    return {
        "tiles": differentiated(partial(tiled.infonce, axes=axes)),
        "global view": differentiated(reference.infonce),
    }


def _compiled_mib(batch: int, n_devices: int) -> dict[str, float]:
    """Temporary MiB per device of both forms, compiled in a process with so many CPU devices."""
    return _in_new_process(_compile_here, batch, n_devices)


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _compile_here(batch: int, n_devices: int) -> dict[str, float]:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", n_devices)
    mesh = jax.make_mesh((n_devices, 1), AXES, axis_types=(AxisType.Auto,) * 2)
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(AXES), PartitionSpec()))
    embedding = jax.ShapeDtypeStruct((batch, DIM), jnp.float32, sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    with jax.set_mesh(mesh):
        return {
            name: loss.lower(embedding, embedding, scale).compile().memory_analysis().temp_size_in_bytes / MIB
            for name, loss in _jax_losses(batch, AXES if n_devices > 1 else ()).items()
        }


def _torch_mib(batch: int) -> float:
    """Measured up to `TORCH_BATCH`, continued beyond it."""
    measured = min(batch, TORCH_BATCH)
    mib: float = _in_new_process(_torch_peak_here, measured)
    return mib * (batch / measured) ** 2


def _torch_peak_here(batch: int) -> float:
    """Rise of the resident set by one pass, with inputs and gradients already there and the libraries warm."""
    _torch_loss(*_embeddings(64))()
    once = _torch_loss(*_embeddings(batch))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    gradients_mib = 2 * batch * DIM * 4 / MIB
    before_mib = pages * resource.getpagesize() / MIB + gradients_mib
    once()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib


def _embeddings(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ecg, text = rng.normal(size=(2, batch, DIM)).astype(np.float32)
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ecg, text))  # type: ignore[return-value]


def _torch_loss(ecg: np.ndarray, text: np.ndarray) -> Callable[[], Losses]:
    """OpenCLIP without local loss: all features gathered, one matrix of logits, its transpose for the other way."""
    all_ecg, all_text = (torch.tensor(x, requires_grad=True) for x in (ecg, text))
    scale, labels = torch.tensor(SCALE, requires_grad=True), torch.arange(len(ecg))

    def once() -> Losses:
        for leaf in (all_ecg, all_text, scale):
            leaf.grad = None
        logits = scale * all_ecg @ all_text.T
        loss = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
        loss.backward()
        d_ecg, d_text, d_scale = (leaf.grad for leaf in (all_ecg, all_text, scale))
        return loss.item(), d_ecg.numpy(), d_text.numpy(), d_scale.item()  # type: ignore[union-attr]

    return once


def _jax_loss(loss: Callable[..., Any], ecg: np.ndarray, text: np.ndarray) -> Callable[[], Losses]:
    arguments = (jnp.asarray(ecg), jnp.asarray(text), jnp.asarray(SCALE, jnp.float32))

    def once() -> Losses:
        value, (d_ecg, d_text, d_scale) = jax.block_until_ready(loss(*arguments))
        return float(value), np.asarray(d_ecg), np.asarray(d_text), float(d_scale)

    return once


def _timings(batch: int, quick: bool) -> Sequence[Timing]:
    ecg, text = _embeddings(batch)
    arms = {name: _jax_loss(loss, ecg, text) for name, loss in _jax_losses(batch).items()}
    arms["PyTorch"] = _torch_loss(ecg, text)
    _agree({name: once() for name, once in arms.items()})
    rounds = 1 if batch > TIMED_BATCHES[0] else 3 if quick else 5
    return measure([Arm(name, once) for name, once in arms.items()], quick=quick, rounds=rounds)


def _agree(results: dict[str, Losses]) -> None:
    """Stops unless all arms compute the same."""
    ours, *peers = results.items()
    for name, theirs in peers:
        for mine, other in zip(ours[1], theirs, strict=True):
            apart = np.linalg.norm(np.asarray(mine) - np.asarray(other)) / np.linalg.norm(np.asarray(other))
            if not apart <= TOLERANCE:
                raise SystemExit(f"{ours[0]} and {name} are not the same loss: {apart:.1e} apart; no timing")


if __name__ == "__main__":
    main(run, __doc__)
