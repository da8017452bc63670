"""A tower without BatchNorm goes the whole way: training, a checkpoint, embedding, fine-tuning."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from support.tiny_cohort import tiny_record, write_cohort
from support.tiny_training import BATCH, random_batch, tiny_experiment, train_on_one_device

from ecgclip_jax.evaluation.protocols.finetune import finetune
from ecgclip_jax.evaluation.protocols.tuning_data import TuningData, tuning_inputs
from ecgclip_jax.inference import Model, load_model
from ecgclip_jax.spec.encoders import HeadSpec, ViT1DSpec
from ecgclip_jax.spec.evaluation import FinetuneSpec
from ecgclip_jax.spec.experiment import MemorySpec, RunSpec
from ecgclip_jax.spec.objectives import InfoNCESpec

LEVELS = 2 * BATCH


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    data_dir, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs") / "vit"
    write_cohort(data_dir, {"train": [tiny_record(number) for number in range(20)]})
    experiment = tiny_experiment(
        ecg_encoder=ViT1DSpec(patch_samples=64, width=16, depth=1, heads=2),
        objective=InfoNCESpec(embedding_dim=16, ecg_head=HeadSpec(kind="linear"), text_head=HeadSpec(hidden=16)),
        memory=MemorySpec(ecg_remat="blocks"),
        run=RunSpec(steps=2, log_every=1, checkpoint_every=1),
    )
    train_on_one_device(experiment, workdir, data_dir)
    return load_model(workdir)


def test_the_checkpoint_embeds(model: Model) -> None:
    assert model.step == 2
    assert model.batch_stats == {"ecg": {}}
    ecg_uv = random_batch(0).ecg_uv
    embedded = model.encode_ecg(ecg_uv)
    assert embedded.embedding.shape == embedded.features.shape == (BATCH, 16)
    np.testing.assert_allclose(np.linalg.norm(embedded.embedding, axis=1), 1, rtol=1e-5)
    assert np.abs(model.encode_ecg(ecg_uv[::-1].copy()).features[::-1] - embedded.features).max() < 1e-5


def test_it_is_fine_tuned(model: Model) -> None:
    ecg_uv = np.concatenate([random_batch(number).ecg_uv for number in (1, 2)])
    inputs = tuning_inputs(model, LEVELS, [(ecg_uv, np.full(LEVELS, 50.0, np.float32))])
    fast = np.abs(np.diff(ecg_uv[:, :, 1].astype(np.float32), axis=1)).mean(axis=1)
    positive = (fast > np.median(fast))[:, None]
    data = TuningData(inputs, np.arange(LEVELS), positive, np.ones_like(positive))
    settings = FinetuneSpec(learning_rates=(3e-3,), epochs=1, min_steps=8, batch=15, checks=2)
    tuned = finetune(model, data, data, settings, seed=0)
    scores = tuned.scores(inputs)[:, 0]
    assert scores[positive[:, 0]].mean() > scores[~positive[:, 0]].mean()
    _, first, last = tuned.trials[0].checks
    assert last.train_loss < first.train_loss
    assert jax.tree.leaves(tuned.stats) == []
