"""FG-CLEP (arXiv 2505.11939): ECGs against the single statements of their reports.

    ecgclip train experiments/fg_clep.py --variant fine --workdir runs/fg_clep

The paper's settings and equations are not public; `objective` says what each part follows. What is set here is the
recipe of the group's later code (FOCAL): ClinicalBERT with its first nine layers frozen, at most 64 tokens a tag, lr
2e-5 with 10 % warm-up, weight decay 1e-4, 100 ECGs per device (8 devices are our guess). Known of the paper: a coarse
stage on reports, then a fine stage on reports whose waveform features a language model has filled in. That
enrichment is no part of this package: the fine variant learns from the statements that the reports have. Its encoder's
size is not public; FOCAL's stands here, a ViT-tiny whose tokens are windows of one second of one lead.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, TokenizerSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import FgClepSpec
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.spec.small import demo_sized, smoke

TEXT_MODEL = "emilyalsentzer/Bio_ClinicalBERT"
OFF = {
    "objective.soft_targets": False,
    "objective.l1_weight": 0.0,
    "objective.tag_attention": False,
    "objective.ecg_head": HeadSpec(kind="linear"),
}
"""SigLIP over tags: what is left of the objective without its three ideas."""


def variants() -> dict[str, Experiment]:
    """`fine`; `plain` without the three ideas; `coarse`, one text per ECG; `demo` and `smoke` on synthetic ECGs."""
    fine = Experiment(
        name="fg_clep_fine",
        summary="FG-CLEP's fine stage on the statements of the reports, with FOCAL's ViT-tiny over lead windows",
        data=DataSpec(sources=(Source(cohort="mimic_iv_ecg"),), batch_global=800, min_report_words=4, texts_per_ecg=4),
        signal=merl(),
        ecg_encoder=ViT1DSpec(patch_samples=500, windows="each_lead"),
        text_encoder=BertSpec(
            weights=TEXT_MODEL,
            tokenizer=TokenizerSpec(source=TEXT_MODEL, max_tokens=64),
            hidden=768,
            layers=12,
            heads=12,
            intermediate=3072,
        ),
        objective=FgClepSpec(text_head=HeadSpec(kind="mlp", hidden=256)),
        optimizer=OptimizerSpec(
            peak_lr=2e-5,
            schedule="cosine",
            warmup_steps=285,
            weight_decay=1e-4,
            frozen=("^text/embeddings/", "^text/layer[0-8]/"),
        ),
        run=RunSpec(steps=2850, log_every=50, checkpoint_every=500),
    )
    coarse = fine.replace(
        {
            "name": "fg_clep_coarse",
            "summary": "FG-CLEP's coarse stage: whole reports, ten epochs",
            "data.texts_per_ecg": 1,
            "objective.tag_attention": False,
            "objective.ecg_head": HeadSpec(kind="linear"),
            "optimizer.warmup_steps": 950,
            "run.steps": 9500,
        }
    )
    demo = demo_sized(
        "fg_clep_demo",
        "FG-CLEP in small: two statements of each report",
        FgClepSpec(embedding_dim=128, text_head=HeadSpec(kind="linear"), similarity_of="tower", learn_bias=True),
        # A text tower at rest keeps the similarities where they are; it has nothing to start from that could be tuned.
        {"data.texts_per_ecg": 2, "optimizer.frozen": ("^text/",)},
    )
    coarse_demo = demo.replace(
        {
            "name": "fg_clep_coarse_demo",
            "summary": "FG-CLEP in small, one embedding per ECG",
            "objective.tag_attention": False,
            "objective.ecg_head": HeadSpec(kind="linear"),
        }
    )
    return {
        "fine": fine,
        "plain": fine.replace(
            {"name": "fg_clep_plain", "summary": "SigLIP over tags", "objective.ecg_head": HeadSpec(kind="linear")}
            | OFF
        ),
        "coarse": coarse,
        "demo": demo,
        "coarse_demo": coarse_demo,
        "smoke": smoke(demo),
    }
