"""Self-supervised baselines on ECGs alone, as CLEF (arXiv 2512.02180) compares with them: SimCLR, BYOL, MoCo.

    ecgclip train experiments/ecg_only.py --variant simclr --workdir runs/simclr

SimCLR and BYOL have the settings of CLEF's released code: no projector, temperature 0.07, BYOL's momentum 0.996 and a
predictor of half the width, batch 64, AdamW 1e-4. MoCo here is in the style of version 3 (arXiv 2104.02057): keys of
the batch instead of a queue, for CLEF's code enqueued each batch twice. Views and encoder are those of
`experiments/clef.py`, with its reservations. In small, BYOL too has heads with normalised outputs, and momenta
start lower than in runs of many epochs (ours). `*_demo` and `*_smoke` run on synthetic ECGs.
"""

from ecgclip_jax.spec.encoders import HeadSpec, ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import BYOLSpec, MoCoSpec, ObjectiveSpec, SimCLRSpec
from ecgclip_jax.spec.signal import LEADS_12, AugmentSpec, ViewSpec, clef
from ecgclip_jax.spec.small import demo_sized, smoke

BATCH = 64
STEPS_PER_EPOCH = 161_000 // BATCH
WIDTH, DEMO_WIDTH = 512, 128
"""Of the features that the heads see."""
DEMO_VIEWS = {
    "view.single_lead": True,
    "signal.normalisation": "zscore_lead",
    "augment.lead_mask_probability": 0.0,
    "augment.max_shift_s": 0.2,
    "augment.scale_range": 0.1,
    "augment.noise_mv": 0.02,
    "augment.wander_mv": 0.05,
    "optimizer.peak_lr": 1e-3,
}
"""Single leads as in the full size. Without z-scores the features of fresh weights are nearly one number, the
amplitude, and what predicts them falls into it (BYOL)."""


def variants() -> dict[str, Experiment]:
    """`simclr`, `byol`, `moco`, each also as `_demo` and `_smoke`."""
    small_head = HeadSpec(kind="mlp_norm", hidden=DEMO_WIDTH, norm_output=True)
    objectives: dict[str, tuple[ObjectiveSpec, ObjectiveSpec]] = {
        "simclr": (
            SimCLRSpec(),
            SimCLRSpec(temperature=0.2, projector=HeadSpec(kind="mlp_norm", hidden=DEMO_WIDTH), projector_dim=64),
        ),
        "byol": (
            BYOLSpec(predictor=HeadSpec(kind="mlp_norm", hidden=WIDTH // 2), momentum_to_one=False),
            BYOLSpec(projector=small_head, projector_dim=64, predictor=small_head, momentum=0.99),
        ),
        "moco": (
            MoCoSpec(projector_dim=256),
            MoCoSpec(projector=small_head, projector_dim=64, predictor=small_head, momentum=0.9),
        ),
    }
    made: dict[str, Experiment] = {}
    for kind, (objective, small) in objectives.items():
        made[kind] = Experiment(
            name=kind,
            summary=f"{kind} on single-lead views, with a ResNet-18",
            seed=42,
            data=DataSpec(sources=(Source(cohort="mimic_iv_ecg"),), batch_global=BATCH),
            signal=clef(name="clef", leads=LEADS_12),
            augment=AugmentSpec(wander_mv=0.1, noise_mv=0.1, time_mask_probability=0.2),
            view=ViewSpec(single_lead=True, same_lead_probability=0.8),
            ecg_encoder=ResNet1DSpec(depth=18, pooling="mean"),
            text_encoder=None,
            objective=objective,
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
        demo = demo_sized(f"{kind}_demo", f"{kind} in small, on views of single leads", small, DEMO_VIEWS)
        made |= {f"{kind}_demo": demo, f"{kind}_smoke": smoke(demo)}
    return made
