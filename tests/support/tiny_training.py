"""The smallest experiment that is still the real thing, and random batches for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgclip_jax.contracts import Batch, TextTokens
from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import SignalSpec

VOCAB = 64
TOKENS = 8
BATCH = 16


def tiny_experiment(**changes: Any) -> Experiment:
    """ResNet-18 of width 4 on one lead at 50 Hz, one BERT layer, MERL's two losses."""
    parts: dict[str, Any] = {
        "name": "tiny",
        "summary": "for tests",
        "data": DataSpec(sources=(Source(cohort="tiny"),), batch_global=BATCH),
        "signal": SignalSpec(name="tiny", rate_hz=50, samples=512, leads=("II", "V2")),
        "ecg_encoder": ResNet1DSpec(width=4, pool_width=16, pool_heads=2),
        "text_encoder": BertSpec(
            tokenizer=TokenizerSpec(vocab_size=VOCAB, max_tokens=TOKENS),
            hidden=16,
            layers=1,
            heads=2,
            intermediate=16,
            max_positions=TOKENS,
        ),
        "objective": InfoNCESpec(
            embedding_dim=16, text_head=HeadSpec(hidden=16), uni_modal_weight=1.0, learn_temperature=True
        ),
        "optimizer": OptimizerSpec(peak_lr=3e-3, warmup_steps=2, weight_decay=1e-4),
        "run": RunSpec(steps=20, log_every=1, checkpoint_every=5),
    }
    return Experiment.model_validate(parts | changes)


def random_batch(step: int, rows: int = BATCH) -> Batch:
    """Rows whose text names the amplitude of their ECG, so that there is something to learn."""
    rng = np.random.default_rng(step)
    level = rng.integers(0, 8, rows)
    time_s = np.arange(5000) / 500
    wave = np.sin(2 * np.pi * (1 + level[:, None]) * time_s)[:, :, None] * 200.0 * (1 + level[:, None, None])
    ecg_uv = (wave + rng.normal(scale=30, size=(rows, 5000, 12))).astype(np.int16)
    ids = np.tile(np.asarray([2, 0, 3, 0, 0, 0, 0, 0], np.int32), (rows, 1))
    ids[:, 1] = 10 + level
    number = np.arange(rows, dtype=np.int32)
    return Batch(
        ecg_uv=ecg_uv,
        record_row=number,
        patient_group=number,
        text_group=level.astype(np.int32),
        texts=TextTokens(ids=ids[:, None], mask=(np.arange(TOKENS) < 3)[None, None].repeat(rows, 0)),
        text_valid=np.ones((rows, 1), bool),
        extras={"mains_hz": np.full(rows, 50.0, np.float32)},
        extras_present={"mains_hz": np.ones(rows, bool)},
    )


def tiny_run(**run: Any) -> Experiment:
    """The tiny experiment for ten updates of three to an epoch, saved after every fourth."""
    return tiny_experiment(run=RunSpec(**{"steps": 10, "log_every": 1, "checkpoint_every": 4} | run))
