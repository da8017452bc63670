"""CLEF (arXiv 2512.02180): one lead, two views, contrast guided by the patients' SCORE2 risk.

    ecgclip train experiments/clef.py --variant released --workdir runs/clef

`released` is the published code's configuration: batch 64, AdamW 1e-4, restarts after 10 epochs, 0.67-40 Hz, z-score,
one of twelve leads per view (the same one in 80 % of the pairs), a span of 10-30 % of the record zeroed in 20 % of the
views, mask of missing metadata off, mean of both terms. `paper` turns the mask on and adds the terms, as its reviews
describe; its batch and epochs are UNKNOWN and stay the code's.

What is not CLEF's: the encoder. CLEF has ECGFounder's Net1D, which this package does not have yet; a ResNet-18 on a
single lead stands in, with BatchNorm, where CLEF has no normalisation at all. CLEF's recorded noises are not
redistributable; drawn wander and noise of about their size (0.1 mV) stand in. Restarts are of one length here, where
the code doubles them.
"""

from ecgclip_jax.spec.encoders import ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import ClefSpec
from ecgclip_jax.spec.signal import LEADS_12, AugmentSpec, ViewSpec, clef
from ecgclip_jax.spec.small import demo_sized, smoke

BATCH = 64
STEPS_PER_EPOCH = 161_000 // BATCH
"""One record of each of about 161,000 patients."""
ONE_LEAD = {"view.single_lead": True, "signal.normalisation": "zscore_lead"}


def variants() -> dict[str, Experiment]:
    """`released`, `paper`; `demo` and `smoke` on synthetic ECGs."""
    released = Experiment(
        name="clef_released",
        summary="CLEF's released configuration on a single-lead ResNet-18",
        seed=42,
        data=DataSpec(sources=(Source(cohort="mimic_iv_ecg"),), batch_global=BATCH),
        signal=clef(name="clef", leads=LEADS_12),
        augment=AugmentSpec(wander_mv=0.1, noise_mv=0.1, time_mask_probability=0.2),
        view=ViewSpec(single_lead=True, same_lead_probability=0.8),
        ecg_encoder=ResNet1DSpec(depth=18, pooling="mean"),
        text_encoder=None,
        objective=ClefSpec(missing_mask=False, reduction="mean"),
        optimizer=OptimizerSpec(
            peak_lr=1e-4,
            end_lr=1e-6,
            schedule="warm_restarts",
            restart_steps=10 * STEPS_PER_EPOCH,
            weight_decay=5e-4,
            decay_all=True,
        ),
        run=RunSpec(steps=100 * STEPS_PER_EPOCH, log_every=50, checkpoint_every=STEPS_PER_EPOCH),
    )
    paper = released.replace(
        {
            "name": "clef_paper",
            "summary": "CLEF's loss as its reviews describe the paper, on a single-lead ResNet-18",
            "objective.missing_mask": True,
            "objective.reduction": "sum",
        }
    )
    demo = demo_sized(
        "clef_demo",
        "CLEF in small: single leads, guided by synthetic risk",
        ClefSpec(temperature=0.2),
        {"augment.time_mask_probability": 0.2, "augment.lead_mask_probability": 0.0, "optimizer.peak_lr": 1e-3}
        | ONE_LEAD,
    )
    return {"released": released, "paper": paper, "demo": demo, "smoke": smoke(demo)}
