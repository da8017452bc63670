"""The demo: contrastive pre-training on the synthetic cohort, minutes on a laptop CPU.

    ecgclip demo                                # prepares, trains, evaluates and writes the report
    ecgclip train experiments/demo.py --variant shuffled_reports   # a null world: every claim must vanish

A narrow ResNet-18 at 100 Hz and a one-layer BERT with mean pooling, trained from scratch; every number is our choice,
none is a paper's. Prompts are worded unlike any report: a small tower that reads words rather than whole sentences
carries over to them best.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, EvaluationSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec, SigmoidSpec
from ecgclip_jax.spec.signal import LEADS_8, AugmentSpec, Bandpass, MainsNotch, SignalSpec
from ecgclip_jax.spec.statements import STATEMENT_KINDS

COHORT = "synthetic_ecg"


def variants() -> dict[str, Experiment]:
    """`base` is the demo; `shuffled_reports` its null world; `sigmoid` the pairwise loss; `smoke` a few steps."""
    base = Experiment(
        name="demo",
        summary="Narrow ResNet-18 and a small BERT on synthetic ECGs of hospitals A and B",
        # Whole reports, boilerplate included: its claims were tested so.
        data=DataSpec(
            sources=(Source(cohort=COHORT, split="train"),),
            batch_global=64,
            statement_kinds=STATEMENT_KINDS,
            statement_keep_probability=0.4,
        ),
        signal=SignalSpec(
            name="demo_100hz",
            rate_hz=100,
            samples=1024,
            leads=LEADS_8,
            bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40.0),
            notch=MainsNotch(),
        ),
        augment=AugmentSpec(lead_mask_probability=0.05, scale_range=0.1),
        ecg_encoder=ResNet1DSpec(depth=18, width=16, pool_width=128, pool_heads=4),
        text_encoder=BertSpec(
            hidden=128,
            layers=1,
            heads=4,
            intermediate=256,
            dropout=0.0,
            pooling="mean",
            tokenizer=TokenizerSpec(vocab_size=1000, max_tokens=40),
        ),
        objective=InfoNCESpec(
            embedding_dim=128,
            text_head=HeadSpec(kind="linear"),
            learn_temperature=True,
            mask_same_text=True,
            direction="mean",
        ),
        optimizer=OptimizerSpec(
            peak_lr=2e-3, end_lr=1e-5, schedule="cosine", warmup_steps=40, weight_decay=0.02, clip_norm=1.0
        ),
        run=RunSpec(steps=800, log_every=20, checkpoint_every=400),
        evaluation=EvaluationSpec(
            train=(Source(cohort=COHORT, split="train"),),
            validation=(Source(cohort=COHORT, split="validation"),),
            test=(Source(cohort=COHORT, split="test"), Source(cohort=COHORT, split="external")),
            label_vocabulary="synthetic",
            min_test_positives=5,
        ),
    )
    return {
        "base": base,
        "shuffled_reports": base.replace({"name": "demo_shuffled_reports", "data.null_world": "shuffled_reports"}),
        "sigmoid": base.replace(
            {
                "name": "demo_sigmoid",
                "objective": SigmoidSpec(
                    embedding_dim=128, text_head=HeadSpec(kind="linear"), mask_same_text=True, bias=-4.0
                ),
            }
        ),
        "smoke": base.replace(
            {
                "name": "demo_smoke",
                "data.batch_global": 16,
                "run.steps": 6,
                "run.log_every": 2,
                "run.checkpoint_every": 3,
                "optimizer.warmup_steps": 2,
            }
        ),
    }
