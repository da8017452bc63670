"""Small experiments on the synthetic cohort, one frame for every objective: comparable, and minutes on a laptop CPU.

Every number is our choice. The frame is that of `experiments/demo.py` (ResNet-18 of a quarter of the width at 100 Hz, a
one-layer BERT with mean pooling) at 200 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecgclip_jax.spec.encoders import BertSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, EvaluationSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import ObjectiveSpec
from ecgclip_jax.spec.signal import LEADS_8, AugmentSpec, Bandpass, MainsNotch, SignalSpec
from ecgclip_jax.spec.statements import STATEMENT_KINDS

COHORT = "synthetic_ecg"


def demo_sized(
    name: str, summary: str, objective: ObjectiveSpec, changes: Mapping[str, Any] | None = None
) -> Experiment:
    """The frame with an objective; `changes` are dotted keys of the experiment, as in `Experiment.replace`.

    The encoder pools by the mean over time; there is a text tower if the objective reads text.
    """
    text = BertSpec(
        hidden=128,
        layers=1,
        heads=4,
        intermediate=256,
        dropout=0.0,
        pooling="mean",
        tokenizer=TokenizerSpec(vocab_size=1000, max_tokens=40),
    )
    frame = Experiment(
        name=name,
        summary=summary,
        # Whole reports, boilerplate included, as the figures in the notes were measured.
        data=DataSpec(sources=(Source(cohort=COHORT),), batch_global=64, statement_kinds=STATEMENT_KINDS),
        signal=SignalSpec(
            name="demo_100hz",
            rate_hz=100,
            samples=1024,
            leads=LEADS_8,
            bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40.0),
            notch=MainsNotch(),
        ),
        augment=AugmentSpec(lead_mask_probability=0.05, scale_range=0.1),
        ecg_encoder=ResNet1DSpec(depth=18, width=16, pooling="mean"),
        text_encoder=text if objective.reads_text else None,
        objective=objective,
        optimizer=OptimizerSpec(
            peak_lr=2e-3, end_lr=1e-5, schedule="cosine", warmup_steps=20, weight_decay=0.02, clip_norm=1.0
        ),
        run=RunSpec(steps=200, log_every=10, checkpoint_every=200),
        evaluation=EvaluationSpec(
            train=(Source(cohort=COHORT, split="train"),),
            validation=(Source(cohort=COHORT, split="validation"),),
            test=(Source(cohort=COHORT, split="test"),),
            min_test_positives=5,
        ),
    )
    return frame.replace(dict(changes or {}))


def smoke(experiment: Experiment) -> Experiment:
    """Four steps of small batches, to see that everything runs."""
    return experiment.replace(
        {
            "name": experiment.name.removesuffix("_demo") + "_smoke",
            "data.batch_global": 16,
            "run.steps": 4,
            "run.log_every": 1,
            "run.checkpoint_every": 2,
            "optimizer.warmup_steps": 1,
        }
    )
