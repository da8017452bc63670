"""Checkpoints: other meshes, numpy, retention, damage of every kind, and a disk that is full."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgclip_jax.checkpoints import CheckpointError, Checkpoints, load_meta, load_params, saved_steps
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.rules import infer_shardings
from ecgclip_jax.spec.experiment import MeshSpec

META = {"fingerprint": "0123", "experiment": {"name": "x", "nested": [1, None, 2.5]}}
MESHES = {"1": (1, MeshSpec()), "8": (8, MeshSpec()), "2x4": (8, MeshSpec(data=2, fsdp=4))}


def make_trees(mesh_name: str, seed: int = 0) -> dict:
    """Parameters, statistics and optimizer state, placed on a mesh."""
    rng = np.random.default_rng(seed)
    params = {
        "ecg": {"kernel": rng.normal(size=(4, 512, 64)).astype(np.float32), "bias": np.zeros(3, np.float32)},
        "objective": {"ecg_head": {}, "log_scale": np.float32(2.5)},
    }
    optimizer = optax.partition({"a": optax.adam(1e-3), "b": optax.set_to_zero()}, {"ecg": "a", "objective": "b"})
    trees = {
        "params": params,
        "batch_stats": {"ecg": {"mean": rng.normal(size=5).astype(np.float32)}},
        "opt_state": optimizer.init(jax.tree.map(jnp.asarray, params)),
    }
    return jax.device_put(trees, shardings(trees, mesh_name))


def shardings(trees: dict, mesh_name: str) -> dict:
    n_devices, spec = MESHES[mesh_name]
    return infer_shardings(build_mesh(spec, jax.devices()[:n_devices]), trees)


def abstract(trees: dict, mesh_name: str) -> dict:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        trees,
        shardings(trees, mesh_name),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints 10 and 20, saved on 2 x 4 devices."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir, keep=2)
    for step in (5, 10, 20):
        checkpoints.save(step, make_trees("2x4", seed=step), META)
    checkpoints.close()
    return workdir


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("mesh_name", MESHES)
def test_a_checkpoint_restores_onto_any_mesh(saved: Path, mesh_name: str) -> None:
    trees = make_trees(mesh_name, seed=20)
    checkpoints = Checkpoints(saved, keep=2)
    found = checkpoints.restore(20, abstract(trees, mesh_name))
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(trees)
    jax.tree.map(np.testing.assert_array_equal, found, trees)
    assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, trees)


def test_the_newest_are_kept_and_described(saved: Path) -> None:
    assert saved_steps(saved / "checkpoints") == [10, 20]
    assert load_meta(saved) == META | {"step": 20}
    assert load_meta(saved, 10)["step"] == 10


def test_parameters_load_as_numpy_without_the_optimizer(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints" / "10" / "opt_state")
    (copy / "checkpoints" / "10" / "files.sha256.json").unlink()
    params, stats, meta = load_params(copy, 10)
    expected = make_trees("1", seed=10)
    jax.tree.map(np.testing.assert_array_equal, params, expected["params"])
    jax.tree.map(np.testing.assert_array_equal, stats, expected["batch_stats"])
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((params, stats)))
    assert meta["step"] == 10


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_one_bit(folder: Path) -> None:
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def cut_a_file_short(folder: Path) -> None:
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:1000])


def remove_a_file(folder: Path) -> None:
    largest_file(folder).unlink()


def empty_its_description(folder: Path) -> None:
    (folder / "_CHECKPOINT_METADATA").write_text("")


def cut_its_list_of_files(folder: Path) -> None:
    (folder / "files.sha256.json").write_text('{"a": ')


@pytest.mark.parametrize(
    "damage", [flip_one_bit, cut_a_file_short, remove_a_file, empty_its_description, cut_its_list_of_files]
)
def test_damage_is_one_sentence_that_names_the_step_and_the_way_out(copy: Path, damage) -> None:
    damage(copy / "checkpoints" / "20")
    with pytest.raises(CheckpointError, match=r"checkpoints/20 is damaged.*delete that folder to go on from step 10"):
        load_params(copy)
    shutil.rmtree(copy / "checkpoints" / "20")
    assert load_params(copy)[2]["step"] == 10


def test_another_model_is_told_by_the_first_array_that_differs(saved: Path) -> None:
    checkpoints = Checkpoints(saved, keep=2)
    trees = make_trees("1")
    trees["params"]["ecg"]["bias"] = jnp.zeros(4)
    with pytest.raises(CheckpointError, match=r"params: ecg/bias is stored as float32\[3\] and wanted as float32\[4\]"):
        checkpoints.restore(20, abstract(trees, "1"))
    trees["params"]["text"] = {"bias": jnp.zeros(4)}
    del trees["params"]["ecg"]["bias"]
    with pytest.raises(CheckpointError, match=r"params: ecg/bias is only stored"):
        checkpoints.restore(20, abstract(trees, "1"))
    checkpoints.close()


def test_a_checkpoint_that_is_not_there(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*; there are: 10, 20"):
        load_params(saved, 7)
    with pytest.raises(CheckpointError, match="train the run first"):
        load_params(tmp_path)


def test_what_a_killed_save_left_behind_is_no_checkpoint(copy: Path) -> None:
    half = copy / "checkpoints" / "30.orbax-checkpoint-tmp"
    shutil.copytree(copy / "checkpoints" / "20", half)
    assert load_meta(copy)["step"] == 20
    assert saved_steps(copy / "checkpoints") == [10, 20]


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """The kernel refuses to write beyond `n_bytes` of a file, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only one is kept, and the old one is not given up for a new one that fails."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    trees = make_trees("1", seed=1)
    checkpoints.save(1, trees, META)
    checkpoints.wait()
    with files_of_at_most(100_000):
        checkpoints.save(2, make_trees("1", seed=2), META)
        with pytest.raises(
            CheckpointError, match=r"step 2 could not be written .* the last good one is step 1, untouched"
        ):
            checkpoints.close()
    assert not [r for r in caplog.records if "_SignalingThread" in r.getMessage()]
    assert saved_steps(tmp_path / "checkpoints") == [1]
    assert list((tmp_path / "checkpoints").glob("2.*tmp"))
    params, _, _ = load_params(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, trees["params"])

    again = Checkpoints(tmp_path, keep=1)
    again.save(2, trees, META)
    again.close()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_a_save_may_be_followed_by_donation_at_once(tmp_path: Path) -> None:
    mesh = build_mesh(MeshSpec())
    sharding = NamedSharding(mesh, PartitionSpec())
    value = jax.device_put(np.arange(1_000_000, dtype=np.float32), sharding)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"params": {"x": value}, "batch_stats": {"y": value}}, META)
    jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(value).block_until_ready()
    checkpoints.close()
    assert (load_params(tmp_path)[0]["x"] == np.arange(1_000_000)).all()


def test_the_list_of_files_covers_every_file(saved: Path) -> None:
    folder = saved / "checkpoints" / "20"
    listed = set(json.loads((folder / "files.sha256.json").read_text()))
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == listed | {"files.sha256.json"}
