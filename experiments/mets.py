"""METS (arXiv 2303.12311): an ECG encoder learns the space of a frozen language model.

    ecgclip train experiments/mets.py --variant base --workdir runs/mets

Known: a trainable ResNet-18, a frozen ClinicalBERT, one linear head per branch, a contrast of paired and unpaired ECGs
and machine-written reports. From re-implementations: Bio_ClinicalBERT, at most 100 tokens, PTB-XL at 100 Hz, and the
prompt "The report of the ECG is that {text}", which is left out here: zero-shot prompts would have to wear it too.
UNKNOWN, and our choice: the exact loss (CLIP's mean of both directions, 0.07), optimiser, batch, schedule, pooling.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import LEADS_12, SignalSpec
from ecgclip_jax.spec.small import demo_sized, smoke
from ecgclip_jax.spec.statements import STATEMENT_KINDS

TEXT_MODEL = "emilyalsentzer/Bio_ClinicalBERT"


def variants() -> dict[str, Experiment]:
    """`base`; `demo` and `smoke` on synthetic ECGs, with a random text tower that stays frozen."""
    base = Experiment(
        name="mets",
        summary="ResNet-18 against a frozen ClinicalBERT, linear heads",
        data=DataSpec(sources=(Source(cohort="ptb_xl"),), batch_global=256, statement_kinds=STATEMENT_KINDS),
        signal=SignalSpec(name="mets_100hz", rate_hz=100, samples=1000, leads=LEADS_12, normalisation="zscore_lead"),
        ecg_encoder=ResNet1DSpec(depth=18, pooling="mean"),
        text_encoder=BertSpec(
            weights=TEXT_MODEL,
            tokenizer=TokenizerSpec(source=TEXT_MODEL, max_tokens=100),
            hidden=768,
            layers=12,
            heads=12,
            intermediate=3072,
            dropout=0.0,
            pooling="cls",
        ),
        objective=InfoNCESpec(direction="mean", ecg_head=HeadSpec(kind="linear"), text_head=HeadSpec(kind="linear")),
        optimizer=OptimizerSpec(peak_lr=1e-3, warmup_steps=100, weight_decay=1e-4, frozen=("^text/",)),
        run=RunSpec(steps=3400, log_every=50, checkpoint_every=500),
    )
    demo = demo_sized(
        "mets_demo",
        "METS in small: linear heads on a frozen text tower",
        InfoNCESpec(
            embedding_dim=128, direction="mean", ecg_head=HeadSpec(kind="linear"), text_head=HeadSpec(kind="linear")
        ),
        {"data.statement_keep_probability": 0.4, "optimizer.frozen": ("^text/",)},
    )
    return {"base": base, "demo": demo, "smoke": smoke(demo)}
