"""How parameters and optimizer moments lie on a mesh with `fsdp`: a golden table, and what a device then holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.parallel.rules import leaf_paths
from ecgclip_jax.spec.experiment import MeshSpec
from ecgclip_jax.spec.files import load_experiment
from ecgclip_jax.training.state import TrainState, abstract_state, build_parts

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "partition-ecgclip_r34-data2-fsdp4.txt"
BERT_VOCABULARY = 30_522


@pytest.fixture(scope="module")
def placed() -> TrainState:
    """ECGCLIP's R34 with its BERT-base, every parameter trained, on 2 x 4 devices; shapes only."""
    experiment = load_experiment(ROOT / "experiments" / "ecgclip.py", "r34").replace({"optimizer.frozen": ()})
    parts = build_parts(experiment, BERT_VOCABULARY)
    return abstract_state(parts, build_mesh(MeshSpec(data=2, fsdp=4), jax.devices()[:8]))


def lines(tree: Any) -> list[str]:
    return [
        f"{path} {list(leaf.shape)} {tuple(leaf.sharding.spec) or 'whole'}"
        for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    ]


def test_partition_table_equals_the_golden_one(placed: TrainState) -> None:
    """A changed rule or renamed layer shows here; ECGCLIP_UPDATE_GOLDEN=1 writes the table anew."""
    found = "\n".join(lines({"params": placed.params, "batch_stats": placed.batch_stats})) + "\n"
    if os.environ.get("ECGCLIP_UPDATE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_moments_lie_where_their_parameters_lie(placed: TrainState) -> None:
    by_path = dict(zip(leaf_paths(placed.params), jax.tree.leaves(placed.params), strict=True))
    moments = 0
    for path, leaf in zip(leaf_paths(placed.opt_state), jax.tree.leaves(placed.opt_state), strict=True):
        for name in ("/mu/", "/nu/"):
            if name in path:
                assert leaf.sharding == by_path[path.split(name)[1]].sharding, path
                moments += 1
    assert moments == 2 * len(by_path)


def test_a_device_holds_little_more_than_its_quarter(placed: TrainState) -> None:
    """By hand: shard sizes summed; small arrays stay whole on purpose."""
    leaves = jax.tree.leaves((placed.params, placed.opt_state))
    whole = sum(leaf.size for leaf in leaves)
    held = sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in leaves)
    assert 0.25 * whole < held < 0.27 * whole
