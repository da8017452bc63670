"""The smallest experiment that is still the real thing, random batches for it, and its runs on one device.

Tests share one experiment, so that its programs are compiled once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ecgclip_jax.contracts import Batch, TextTokens
from ecgclip_jax.data.batch import EXTRAS
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MeshSpec, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import SignalSpec
from ecgclip_jax.text.tokenizer import make_tokenizer
from ecgclip_jax.training import loop

TOKENS, BATCH, STEPS = 8, 16, 24
TOKENIZER = TokenizerSpec(vocab_size=64, max_tokens=TOKENS)
FROZEN = "^text/embeddings/"


def tiny_experiment(**changes: Any) -> Experiment:
    """ResNet-10 of width 4 on two leads at 50 Hz, one BERT layer, MERL's two losses; three steps to an epoch."""
    parts: dict[str, Any] = {
        "name": "tiny",
        "summary": "for tests",
        "data": DataSpec(sources=(Source(cohort="tiny"),), batch_global=BATCH),
        "signal": SignalSpec(name="tiny", rate_hz=50, samples=512, leads=("II", "V2")),
        "ecg_encoder": ResNet1DSpec(depth=10, width=4, pool_width=16, pool_heads=2),
        "text_encoder": BertSpec(
            tokenizer=TOKENIZER, hidden=16, layers=1, heads=2, intermediate=16, max_positions=TOKENS
        ),
        "objective": InfoNCESpec(
            embedding_dim=16, text_head=HeadSpec(hidden=16), uni_modal_weight=1.0, learn_temperature=True
        ),
        "optimizer": OptimizerSpec(peak_lr=3e-3, schedule="constant", weight_decay=1e-4, frozen=(FROZEN,)),
        "run": RunSpec(steps=STEPS, log_every=1, checkpoint_every=10),
    }
    return Experiment.model_validate(parts | changes)


def tiny_run(**run: Any) -> Experiment:
    """The tiny experiment with another rhythm of logging, saving or validating."""
    return tiny_experiment(run=tiny_experiment().run.model_copy(update=run))


@cache
def tiny_vocabulary() -> int:
    """Number of tokens of the tokenizer that a run on `support.tiny_cohort` trains."""
    return len(make_tokenizer(TOKENIZER, [f"Sinus rhythm, variant {n}." for n in range(5)]))


def random_batch(step: int) -> Batch:
    """Rows whose text names the rhythm of their ECG, so that there is something to learn."""
    rng = np.random.default_rng(step)
    level = rng.integers(0, 8, BATCH)
    time_s = np.arange(5000) / 500
    wave = np.sin(2 * np.pi * (1 + level[:, None]) * time_s)[:, :, None] * 200.0 * (1 + level[:, None, None])
    ids = np.tile(np.asarray([2, 0, 3, 0, 0, 0, 0, 0], np.int32), (BATCH, 1))
    ids[:, 1] = 10 + level
    number = np.arange(BATCH, dtype=np.int32)
    fields: dict[str, Any] = {
        "ecg_uv": (wave + rng.normal(scale=30, size=(BATCH, 5000, 12))).astype(np.int16),
        "record_row": number,
        "patient_group": number,
        "text_group": level[:, None].astype(np.int32),
        "texts": TextTokens(ids=ids[:, None], mask=(np.arange(TOKENS) < 3)[None, None].repeat(BATCH, 0)),
        "text_valid": np.ones((BATCH, 1), bool),
        "extras": {name: np.full(BATCH, 50.0, np.float32) for name in EXTRAS},
        "extras_present": {name: np.ones(BATCH, bool) for name in EXTRAS},
    }
    return Batch(**fields)


def one_device_mesh(spec: MeshSpec) -> jax.sharding.Mesh:
    """A mesh of the first device, whatever the specification says."""
    return build_mesh(MeshSpec(), jax.devices()[:1])


@contextmanager
def on_one_device() -> Iterator[None]:
    """Training within it runs on the first of this process's devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "build_mesh", one_device_mesh)
        yield


def train_on_one_device(experiment: Experiment, workdir: Path, data_dir: Path, **options: Any) -> loop.RunSummary:
    """`train` on the first of this process's devices."""
    with on_one_device():
        return loop.train(experiment, workdir, data_dir, **options)
