"""A run that starts from another: what it takes over, what it inherits, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_training import TOKENIZER, tiny_experiment, tiny_run, tiny_vocabulary, train_on_one_device

from ecgclip_jax.checkpoints import load_params
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.experiment import Experiment, MeshSpec, StartSpec
from ecgclip_jax.spec.objectives import BYOLSpec
from ecgclip_jax.training.starting import StartError, start_state
from ecgclip_jax.training.state import build_parts, init_state


@pytest.fixture(scope="module")
def first_run(run_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("start") / "first"
    train_on_one_device(tiny_run(steps=2, checkpoint_every=2), workdir, run_data)
    return workdir


def started(experiment: Experiment) -> Any:
    mesh = build_mesh(MeshSpec(), jax.devices()[:1])
    parts = build_parts(experiment, tiny_vocabulary() if experiment.text_encoder else 0)
    return jax.device_get(start_state(parts, mesh)), jax.device_get(init_state(parts, mesh))


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_ecg_tower_and_its_statistics_are_taken_over_and_nothing_else(first_run: Path) -> None:
    state, random = started(tiny_experiment(start=StartSpec(run=str(first_run))))
    params, stats, _ = load_params(first_run)
    assert same(state.params["ecg"], params["ecg"])
    assert same(state.batch_stats, stats)
    assert same(state.params["text"], random.params["text"])
    assert same(state.params["objective"], random.params["objective"])
    assert int(state.step) == 0


def test_text_and_objective_need_the_same_tokens_and_shapes(first_run: Path) -> None:
    whole = StartSpec(run=str(first_run), parts=("ecg", "text", "objective"))
    with pytest.raises(StartError, match="must be the tokenizer of"):
        started(tiny_experiment(start=whole))
    own = TOKENIZER.model_copy(update={"source": str(first_run / "tokenizer")})
    text = tiny_experiment().text_encoder.model_copy(update={"tokenizer": own})
    other_head = tiny_experiment().objective.model_copy(update={"text_head": HeadSpec(kind="linear")})
    state, random = started(tiny_experiment(start=whole, text_encoder=text, objective=other_head))
    params, _, _ = load_params(first_run)
    assert same(state.params["text"], params["text"])
    assert same(state.params["objective"]["view_1"], params["objective"]["view_1"])
    assert same(state.params["objective"]["text_head"], random.params["objective"]["text_head"]), "another kind of head"


def test_a_momentum_branch_starts_where_its_tower_starts(first_run: Path) -> None:
    byol = BYOLSpec(predictor=HeadSpec(kind="mlp_norm", hidden=8))
    start = StartSpec(run=str(first_run))
    optimizer = tiny_experiment().optimizer.model_copy(update={"frozen": ()})
    state, _ = started(tiny_experiment(start=start, objective=byol, text_encoder=None, optimizer=optimizer))
    assert same(state.target["ecg"], load_params(first_run)[0]["ecg"])
    assert same(state.target_stats, state.batch_stats)


def test_another_input_or_encoder_is_refused(first_run: Path) -> None:
    start = StartSpec(run=str(first_run))
    signal = tiny_experiment().signal
    with pytest.raises(StartError, match="trained with another signal"):
        started(tiny_experiment(start=start, signal=signal.model_copy(update={"unit": "uV"})))
    narrow = tiny_experiment().ecg_encoder.model_copy(update={"width": 8})
    with pytest.raises(StartError, match="trained with another ecg_encoder"):
        started(tiny_experiment(start=start, ecg_encoder=narrow))


def test_what_the_first_run_saw_counts_as_seen(first_run: Path, run_data: Path, tmp_path: Path) -> None:
    second = tiny_run(steps=2, checkpoint_every=2).model_copy(update={"start": StartSpec(run=str(first_run))})
    train_on_one_device(second, tmp_path / "second", run_data)
    before, after = (pq.read_table(run / "exposure.parquet") for run in (first_run, tmp_path / "second"))
    assert after.num_rows == 2 * before.num_rows
    assert set(after.column("waveform_sha256").to_pylist()) >= set(before.column("waveform_sha256").to_pylist())
