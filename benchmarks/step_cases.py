"""What the training-step benchmark runs: MERL's step with its encoders on two inputs, and the FLOPs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ecgclip_jax.contracts import Batch, TextTokens, TextVectors
from ecgclip_jax.data.batch import EXTRAS
from ecgclip_jax.spec.encoders import HeadSpec, ResNet1DSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.files import load_experiment
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES, ecgclip, merl

ROOT: Final = Path(__file__).resolve().parents[1]
VOCABULARY: Final = 30_522
TOKENS: Final = 256
"""MERL pads every report to so many, whatever its length."""
REAL_TOKENS: Final = 32
"""Of these not padding: a machine's report of a few statements."""
TEXT_GFLOP: Final = 45.9
"""Forward pass of BERT-base on 256 tokens, attention included."""
GATE_BATCH: Final = 4
GATE_EPSILON: Final = 1e-3
"""Chosen by us, for comparing forms only; the experiment's own, with which steps are timed, is 1e-8."""


ENCODERS: Final[dict[str, ResNet1DSpec | ViT1DSpec]] = {
    "r18": ResNet1DSpec(depth=18),
    "r34": ResNet1DSpec(depth=34),
    "vit_small": ViT1DSpec(width=384, heads=6),
}
SHARED_SPACE: Final = {"resnet1d": HeadSpec(kind="none"), "vit1d": HeadSpec(kind="mlp", hidden=256)}
"""How the encoder's output comes into the shared space: attention pooling of a ResNet ends there."""


def encoder_settings(name: str, dtype: str) -> dict[str, object]:
    """What an experiment changes to have one of `ENCODERS`, BatchNorm over the whole batch."""
    encoder = ENCODERS[name]
    return {"ecg_encoder": encoder.replace({"dtype": dtype}), "objective.ecg_head": SHARED_SPACE[encoder.kind]}


@dataclass(frozen=True)
class Case:
    """An encoder and an input; GFLOP of forward and backward per ECG, encoder alone (2 per multiply-add)."""

    name: str
    encoder_name: str
    eight_leads: bool
    gflop: float
    roof_ecg_per_s: float | None
    """Per-layer roof of one H200 without kernels of our own (790 TFLOP/s, 4.3 TB/s), where it was worked out."""

    @property
    def encoder(self) -> ResNet1DSpec | ViT1DSpec:
        """At its published size."""
        return ENCODERS[self.encoder_name]

    @property
    def leads(self) -> int:
        """Of the encoder's input."""
        return 8 if self.eight_leads else 12

    @property
    def samples(self) -> int:
        """Of the encoder's input."""
        return 4096 if self.eight_leads else 5000


CASES: Final = (
    Case("r18_12x5000", "r18", False, 10.26, 41_500),
    Case("r34_12x5000", "r34", False, 20.96, 23_000),
    Case("vit_small_12x5000", "vit_small", False, 13.39, 40_900),
    Case("r18_8x4096", "r18", True, 2.80 * 10.26 / 3.43, None),
    Case("r34_8x4096", "r34", True, 5.72 * 20.96 / 6.99, 28_100),
)
"""Counted for 12 x 5000 in both passes, for 8 x 4096 forward; its backward pass is taken in proportion."""


def experiment(case: Case, batch: int, *, dtype: str, text_in_loop: bool, gate: bool) -> Experiment:
    """MERL as released on one device; in the gate without dropout, and with an epsilon that keeps rounding small.

    With Adam's own every weight moves by the learning rate at first, however small its gradient: what is rounding in a
    gradient would be a whole step.
    """
    return load_experiment(ROOT / "experiments" / "merl.py", "released").replace(
        {
            "signal": ecgclip() if case.eight_leads else merl(),
            "data.batch_global": batch,
            **encoder_settings(case.encoder_name, dtype),
            "text_encoder.weights": None,
            "text_encoder.dtype": dtype,
            "text_encoder.dropout": 0.1 if text_in_loop and not gate else 0.0,
            "objective.uni_modal_dropout": 0.0 if gate else 0.1,
            "memory.text_cache": "off" if text_in_loop else "auto",
            **({"optimizer.epsilon": GATE_EPSILON} if gate else {}),
        }
    )


def text_tokens(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids `[batch, 256]` int32 and their mask."""
    ids = np.random.default_rng(1).integers(1000, VOCABULARY, (batch, TOKENS), dtype=np.int32)
    mask = np.broadcast_to(np.arange(TOKENS) < REAL_TOKENS, ids.shape)
    return np.where(mask, ids, 0).astype(np.int32), mask


def host_batch(batch: int, pooled: np.ndarray | None) -> Batch:
    """Random ECGs as they are stored, with tokens, or with the text tower's outputs `pooled` [batch, hidden]."""
    rng, rows = np.random.default_rng(0), np.arange(batch, dtype=np.int32)
    ids, mask = text_tokens(batch)
    tokens: dict[str, Any] = {"ids": ids[:, None], "mask": mask[:, None]}
    vectors: dict[str, Any] = {} if pooled is None else {"pooled": pooled[:, None]}
    fields: dict[str, Any] = {
        "ecg_uv": rng.integers(-900, 900, (batch, STORED_SAMPLES, len(STORED_LEADS)), dtype=np.int16),
        "record_row": rows,
        "patient_group": rows,
        "text_group": rows[:, None],
        "texts": TextVectors(**vectors) if vectors else TextTokens(**tokens),
        "text_valid": np.ones((batch, 1), bool),
        "extras": {name: np.full(batch, 50.0, np.float32) for name in EXTRAS},
        "extras_present": {name: np.ones(batch, bool) for name in EXTRAS},
    }
    return Batch(**fields)
