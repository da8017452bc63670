"""Real ECGs and their German reports: whatever part of PTB-XL lies in the data directory.

    ecgclip prepare ptb_xl --source FOLDER
    ecgclip train experiments/ptb_xl_sample.py --workdir runs/ptb_xl_sample
    ecgclip evaluate runs/ptb_xl_sample

Sized for the few hundred records of a sample: it shows that the whole path works on real signals and supports no claim.
Every number is our choice.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, EvaluationSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import LEADS_8, AugmentSpec, Bandpass, MainsNotch, SignalSpec

COHORT = "ptb_xl"


def variants() -> dict[str, Experiment]:
    """`base` trains on folds 1-8, chooses on fold 9 and tests on fold 10."""
    base = Experiment(
        name="ptb_xl_sample",
        summary="Narrow ResNet-18 and a small BERT on real ECGs with German reports",
        data=DataSpec(sources=(Source(cohort=COHORT, split="train"),), batch_global=64, statement_keep_probability=0.5),
        signal=SignalSpec(
            name="ptb_xl_sample_100hz",
            rate_hz=100,
            samples=1024,
            leads=LEADS_8,
            bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40.0),
            notch=MainsNotch(),
        ),
        augment=AugmentSpec(lead_mask_probability=0.1, max_shift_s=0.5, scale_range=0.2, noise_mv=0.02),
        ecg_encoder=ResNet1DSpec(depth=18, width=16, pool_width=128, pool_heads=4),
        text_encoder=BertSpec(
            hidden=128,
            layers=1,
            heads=4,
            intermediate=256,
            pooling="mean",
            tokenizer=TokenizerSpec(vocab_size=1000, max_tokens=64),
        ),
        objective=InfoNCESpec(
            embedding_dim=128,
            text_head=HeadSpec(kind="linear"),
            learn_temperature=True,
            mask_same_text=True,
            mask_same_patient=True,
            direction="mean",
        ),
        optimizer=OptimizerSpec(
            peak_lr=1e-3, end_lr=1e-5, schedule="cosine", warmup_steps=20, weight_decay=0.05, clip_norm=1.0
        ),
        run=RunSpec(steps=200, log_every=10, checkpoint_every=100),
        evaluation=EvaluationSpec(
            train=(Source(cohort=COHORT, split="train"),),
            validation=(Source(cohort=COHORT, split="validation"),),
            test=(Source(cohort=COHORT, split="test"),),
            label_vocabulary="scp",
            prompt_language="de",
            min_test_positives=5,
            macro_min_labels=100,  # a sample supports no macro claim
        ),
    )
    return {"base": base}
