"""The compiled step: it learns, it is compiled once, frozen parameters rest, and the mesh does not show."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_training import FROZEN, STEPS, random_batch, tiny_experiment, tiny_vocabulary

from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.rules import leaf_paths
from ecgclip_jax.spec.experiment import MeshSpec
from ecgclip_jax.training.gradients import row_keys
from ecgclip_jax.training.state import TrainState, build_parts, init_state, step_key
from ecgclip_jax.training.step import TrainStep


class Trained:
    """A few steps on random batches."""

    def __init__(self, n_devices: int, mesh: MeshSpec, steps: int) -> None:
        self.mesh = build_mesh(mesh, jax.devices()[:n_devices])
        self.parts = build_parts(tiny_experiment(), tiny_vocabulary())
        self.step = TrainStep(self.parts, self.mesh)
        state = init_state(self.parts, self.mesh)
        self.first: TrainState = jax.device_get(state)
        metrics = []
        for number in range(steps):
            state, values = self.step(state, to_global(random_batch(number), self.mesh))
            metrics.append(values)
        self.state, self.metrics = state, jax.device_get(metrics)

    def values(self, name: str) -> np.ndarray:
        return np.asarray([m[name] for m in self.metrics])


@pytest.fixture(scope="module")
def on_8_devices() -> Trained:
    return Trained(8, MeshSpec(data=4, fsdp=2), STEPS)


def test_the_loss_falls(on_8_devices: Trained) -> None:
    loss = on_8_devices.values("loss")
    assert np.isfinite(loss).all()
    assert loss[-5:].mean() < 0.85 * loss[:5].mean()
    assert on_8_devices.values("finite").all()
    assert int(on_8_devices.state.step) == STEPS


def test_the_step_is_compiled_once(on_8_devices: Trained) -> None:
    assert on_8_devices.step.jitted._cache_size() == 1


def test_one_device_gives_the_same_losses_and_weights_at_the_start(on_8_devices: Trained) -> None:
    """Dropout is on: its masks belong to the rows, not to the devices. Later steps amplify rounding."""
    alone = Trained(1, MeshSpec(), 3)
    jax.tree.map(np.testing.assert_array_equal, alone.first.params, on_8_devices.first.params)
    np.testing.assert_allclose(alone.values("loss"), on_8_devices.values("loss")[:3], rtol=1e-3)
    np.testing.assert_allclose(alone.values("grad_norm")[:1], on_8_devices.values("grad_norm")[:1], rtol=1e-4)


def test_frozen_parameters_stay_and_hold_no_moments(on_8_devices: Trained) -> None:
    before, after = (jax.tree.leaves(s.params) for s in (on_8_devices.first, jax.device_get(on_8_devices.state)))
    unchanged = {
        path for path, a, b in zip(leaf_paths(on_8_devices.first.params), before, after, strict=True) if (a == b).all()
    }
    frozen = {path for path in leaf_paths(on_8_devices.first.params) if path.startswith(FROZEN.removeprefix("^"))}
    # The key's bias adds the same to every score of a softmax: its gradient is rounding or exactly zero.
    assert frozen <= unchanged
    assert all(path in frozen or path.endswith("/key/bias") for path in unchanged)
    assert not any("embeddings" in path for path in leaf_paths(on_8_devices.first.opt_state))


def test_running_statistics_move(on_8_devices: Trained) -> None:
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), on_8_devices.first.batch_stats, on_8_devices.state.batch_stats
    )
    assert all(jax.tree.leaves(moved))


def test_every_row_of_every_step_has_its_own_key() -> None:
    experiment = tiny_experiment()
    keys = [jax.random.key_data(row_keys(step_key(experiment, jnp.asarray(step)), 16)) for step in range(3)]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 48
