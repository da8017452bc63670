"""The small form of `make proofs objectives`: a few steps of every objective on noisy waves of eight kinds, none twice.

The loss falls, and the kind of wave is told better than before training: with text by the nearest of the eight texts
(zero-shot), without by a ridge probe on the features. BYOL
and FG-CLEP, which take longer than a test, have to show their loss only.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_training import TOKENS, random_batch, tiny_experiment, tiny_vocabulary

from ecgclip_jax.contracts import Batch, TextRows, TextTokens
from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.encoders import HeadSpec, ResNet1DSpec
from ecgclip_jax.spec.experiment import Experiment, MeshSpec
from ecgclip_jax.spec.objectives import (
    BYOLSpec,
    ClefSpec,
    FgClepSpec,
    InfoNCESpec,
    MoCoSpec,
    ObjectiveSpec,
    SigmoidSpec,
    SimCLRSpec,
    SupervisedSpec,
    SurvivalSpec,
)
from ecgclip_jax.spec.signal import AugmentSpec
from ecgclip_jax.training.state import TrainingParts, TrainState, build_parts, init_state
from ecgclip_jax.training.step import TrainStep

STEPS, LEVELS = 48, 8
HEADS = {"embedding_dim": 16, "text_head": HeadSpec(kind="linear"), "ecg_head": HeadSpec(kind="linear")}
SMALL = HeadSpec(kind="mlp_norm", hidden=16)
OBJECTIVES: tuple[ObjectiveSpec, ...] = (
    InfoNCESpec(**HEADS, uni_modal_weight=1.0, mask_same_text=True),
    SigmoidSpec(**HEADS, bias=-3.0, mask_same_text=True),
    FgClepSpec(**HEADS, attention_heads=2, similarity_of="tower"),
    ClefSpec(),
    SimCLRSpec(temperature=0.2),
    BYOLSpec(projector=SMALL, projector_dim=16, predictor=SMALL, momentum=0.98),
    MoCoSpec(projector=SMALL, projector_dim=16, predictor=SMALL, momentum=0.9),
    SupervisedSpec(labels=("a", "b", "c"), measurements=("m",)),
    SurvivalSpec(),
)


def experiment_of(objective: ObjectiveSpec) -> Experiment:
    changes: dict[str, Any] = {
        "objective": objective,
        "ecg_encoder": ResNet1DSpec(depth=10, width=4, pooling="mean"),
        "augment": AugmentSpec(noise_mv=0.1, scale_range=0.2, max_shift_s=0.5),
        "optimizer": tiny_experiment().optimizer.model_copy(update={"frozen": (), "peak_lr": 5e-3}),
    }
    if not objective.reads_text:
        changes["text_encoder"] = None
    return tiny_experiment(**changes)


def level_of(batch: Batch) -> np.ndarray:
    return np.asarray(batch.text_group)[:, 0]


@cache
def noisy_batch(number: int) -> Batch:
    """`random_batch` with noise; the objectives share it."""
    batch = random_batch(number)
    noise = np.random.default_rng(1000 + number).normal(scale=3000, size=batch.ecg_uv.shape)
    return replace(batch, ecg_uv=np.clip(batch.ecg_uv + noise, -32000, 32000).astype(np.int16))  # type: ignore[arg-type]


def batch_of(objective: ObjectiveSpec, number: int) -> Batch:
    """`noisy_batch` with everything that an objective may read, all of it told by the level."""
    batch, rng = noisy_batch(number), np.random.default_rng(2000 + number)
    level = level_of(batch)
    extras = {
        "labels": np.stack([level >= 4, level % 2 == 0, level < 2], axis=1).astype(np.float32),
        "measurements": (level[:, None] - 3.5) / 2.3,
        "risk": level / 20 + rng.uniform(0, 0.01, len(level)),
        "risk_completeness": np.ones(len(level)),
        "follow_up_years": 0.3 + (3 + rng.uniform(size=len(level))) * (1 - level / 9),
        "event": (rng.uniform(size=len(level)) < 0.7).astype(np.float32),
    }
    extras = {name: value.astype(np.float32) for name, value in extras.items()}
    texts: Any = batch.texts if objective.reads_text else TextRows(batch.text_group)
    if isinstance(objective, FgClepSpec):
        # Two tags: the level, and its parity.
        ids = np.zeros((len(level), 2, TOKENS), np.int32)
        ids[:, :, 0], ids[:, 0, 1], ids[:, 1, 1], ids[:, :, 2] = 2, 10 + level, 20 + level % 2, 3
        texts = TextTokens(ids=ids, mask=np.tile(np.arange(TOKENS) < 3, (len(level), 2, 1)))  # type: ignore[arg-type]
        group, valid = np.stack([level, 100 + level % 2], axis=1), np.ones((len(level), 2), bool)
        batch = replace(batch, text_group=group.astype(np.int32), text_valid=valid)  # type: ignore[arg-type]
    return replace(
        batch,
        texts=texts,
        extras=dict(batch.extras) | extras,
        extras_present=dict(batch.extras_present) | {k: np.ones(v.shape, bool) for k, v in extras.items()},
    )


def encoded(parts: TrainingParts, state: TrainState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, embeddings and levels of 24 other batches, [2, records, …]: one half to fit, one to test."""
    spec = parts.experiment.signal
    operators = build_operators(spec)

    @jax.jit
    def encode(params: Any, stats: Any, ecg_uv: Any) -> Any:
        ecg = preprocess(spec, operators, ecg_uv, {}, {})
        output, _ = parts.towers.ecg(params["ecg"], stats["ecg"], ecg, train=False)
        return output.features, parts.objective.ecg_embedding(parts.heads, params["objective"], output)

    batches = [batch_of(parts.experiment.objective, 500 + n) for n in range(24)]
    features, embeddings = zip(*(encode(state.params, state.batch_stats, b.ecg_uv) for b in batches), strict=True)
    level = np.stack([level_of(b) for b in batches]).reshape(2, -1)
    return (*(np.stack(x).reshape(2, level.shape[1], -1) for x in (features, embeddings)), level)


def zero_shot_accuracy(parts: TrainingParts, state: TrainState) -> float:
    """The level whose text lies nearest."""
    ids = np.zeros((LEVELS, TOKENS), np.int32)
    ids[:, 0], ids[:, 1], ids[:, 2] = 2, 10 + np.arange(LEVELS), 3
    mask = np.tile(np.arange(TOKENS) < 3, (LEVELS, 1))
    output = parts.towers.text(state.params["text"], jnp.asarray(ids), jnp.asarray(mask), train=False)
    texts = parts.objective.text_embedding(parts.heads, state.params["objective"], output)
    _, embeddings, level = encoded(parts, state)
    return float(((embeddings @ np.asarray(texts).T).argmax(axis=2) == level).mean())


def probe_accuracy(parts: TrainingParts, state: TrainState) -> float:
    """Of a ridge regression on one-hot levels."""
    x, _, level = encoded(parts, state)
    centre, spread = x[0].mean(axis=0), x[0].std(axis=0) + 1e-6
    train, test = (np.c_[(part - centre) / spread, np.ones(len(part))] for part in x)
    weights = np.linalg.solve(train.T @ train + np.eye(train.shape[1]), train.T @ np.eye(LEVELS)[level[0]])
    return float(((test @ weights).argmax(axis=1) == level[1]).mean())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.kind)
def test_the_loss_falls_and_the_features_improve(objective: ObjectiveSpec) -> None:
    mesh = build_mesh(MeshSpec(), jax.devices()[:1])
    parts = build_parts(experiment_of(objective), tiny_vocabulary())
    step, state = TrainStep(parts, mesh), init_state(parts, mesh)
    accuracy = zero_shot_accuracy if objective.reads_text else probe_accuracy
    untrained = accuracy(parts, state)
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, to_global(batch_of(objective, number), mesh))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    trained = accuracy(parts, state)
    print(objective.kind, np.mean(losses[:8]), np.mean(losses[-8:]), untrained, trained)
    if not isinstance(objective, BYOLSpec | FgClepSpec):
        assert trained > untrained + 0.04
