"""Our arms of the training-step benchmark: the step that `ecgclip train` runs, on a batch that stays on the device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import save_file

from benchmarks.step_cases import GATE_BATCH, VOCABULARY, Case, experiment, host_batch, text_tokens
from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.experiment import MeshSpec
from ecgclip_jax.training.state import build_parts, init_state
from ecgclip_jax.training.step import TrainStep


def platform() -> dict[str, Any]:
    """What jax runs on here."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {"platform": device.platform, "kind": device.device_kind, "memory_bytes": stats.get("bytes_limit", 0)}


class OurStep:
    """One device's training step, with the text tower in it or its outputs given."""

    def __init__(self, case: Case, batch: int, *, text_in_loop: bool, gate: Path | None = None) -> None:
        """With `gate`, float32 without dropout from the weights written there."""
        self._mesh = build_mesh(MeshSpec(), jax.devices()[:1])
        self.dtype = "float32" if gate or jax.default_backend() == "cpu" else "bfloat16"
        self.experiment = experiment(case, batch, dtype=self.dtype, text_in_loop=text_in_loop, gate=gate is not None)
        self.parts = build_parts(self.experiment, VOCABULARY)
        self.state = init_state(self.parts, self._mesh)
        pooled = None
        if not text_in_loop:
            pooled = np.random.default_rng(2).normal(size=(batch, self.parts.towers.text_width)).astype(np.float32)
            pooled = self.pooled() if gate else pooled
        self._batch = to_global(host_batch(batch, pooled), self._mesh)
        self._step = TrainStep(self.parts, self._mesh)
        self._loss = 0.0

    def steps(self, number: int) -> None:
        """So many updates, dispatched as training does; waits for the last."""
        for _ in range(number):
            self.state, metrics = self._step(self.state, self._batch)
        self._loss = float(jax.block_until_ready((self.state, metrics))[1]["loss"])

    def first(self) -> dict[str, Any]:
        """Compiles and makes one update."""
        began_s = time.perf_counter()
        self.steps(1)
        return {"first_step_s": time.perf_counter() - began_s, "loss": self._loss, "precision": self.dtype}

    def peak_bytes(self) -> int | None:
        """Most memory in use so far; None where the device does not tell."""
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")

    def pooled(self) -> np.ndarray:
        """The text tower's outputs for the gate's tokens [batch, hidden]."""
        ids, mask = (jnp.asarray(array) for array in text_tokens(GATE_BATCH))
        towers = self.parts.towers
        run = jax.jit(lambda params: towers.text(params, ids, mask, train=False).pooled)
        return np.asarray(run(self.state.params["text"]))

    def three_losses(self) -> tuple[list[float], Any, Any]:
        """Losses of three updates; gradient of the first (ECG tower and heads) and running statistics after it."""
        losses = []
        for number in range(3):
            self.steps(1)
            losses.append(self._loss)
            if number == 0:
                gradient, stats = self._first_gradient(), jax.device_get(self.state.batch_stats)
        return losses, gradient, stats

    def _first_gradient(self) -> Any:
        """After one update AdamW's first moment is (1 - beta1) times the gradient."""
        moments = optax.tree_utils.tree_get_all_with_path(self.state.opt_state, "mu")
        ((_, moment),) = [entry for entry in moments if jax.tree.leaves(entry[1]["ecg"])]
        scale = 1 / (1 - self.experiment.optimizer.beta1)
        return jax.tree.map(lambda leaf: np.asarray(leaf) * scale, {k: moment[k] for k in ("ecg", "objective")})


def write_gate(case: Case, folder: Path) -> dict[str, Any]:
    """Runs both of our arms in float32 and writes what the peers are held against: weights, input, gradient, losses."""
    live = OurStep(case, GATE_BATCH, text_in_loop=True, gate=folder)
    start = jax.device_get({"params": live.state.params, "stats": live.state.batch_stats})
    ecg_uv = jnp.asarray(host_batch(GATE_BATCH, None).ecg_uv)
    extras = {"mains_hz": jnp.full(GATE_BATCH, 50.0)}
    present = {"mains_hz": jnp.ones(GATE_BATCH, bool)}
    signal = preprocess(live.experiment.signal, build_operators(live.experiment.signal), ecg_uv, extras, present)
    pooled = live.pooled()
    losses, gradient, stats = live.three_losses()
    del live
    cached = OurStep(case, GATE_BATCH, text_in_loop=False, gate=folder)
    cached_losses, _, _ = cached.three_losses()
    arrays = start | {"gradient": gradient, "stats_after": stats, "signal": np.asarray(signal.signal), "pooled": pooled}
    save_file(flat(arrays), folder / "gate.safetensors")
    return {"losses": losses, "losses_cached": cached_losses}


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Nested dictionaries of arrays as one, keys joined by slashes."""
    return {
        "/".join(entry.key for entry in path): np.ascontiguousarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
