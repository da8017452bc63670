"""MERL (arXiv 2403.06659): ResNet-18, attention pooling, cross-modal plus uni-modal alignment on MIMIC-IV-ECG.

    ecgclip train experiments/merl.py --variant released --workdir runs/merl

`paper` and `released` differ where the paper and the released code do (`released` follows the code that was published:
lr 1e-3, weight decay 1e-8, 128 ECGs per process on 8 processes, text tower frozen in fact). What both leave open is
marked as our choice below.

One thing differs on purpose: the released loop leaves its frozen text tower in train mode, so that BERT's dropout (0.1)
is noise on its outputs. Here that noise is left out, so that each distinct report is embedded once instead of in every
step; `released_live` keeps it, and with it the text tower in every step.

`vit` is MERL's other encoder, ViT-tiny, with the settings of `released`. Its published head normalises by running
BatchNorm statistics; here a linear-GELU-linear head stands in its place, as on the text side (our choice).
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.spec.small import demo_sized
from ecgclip_jax.spec.statements import STATEMENT_KINDS

TEXT_MODEL = "ncbi/MedCPT-Query-Encoder"
TRAIN_PAIRS = 756_259
"""98 % of the 771,693 pairs of the released preparation."""


def _epochs(epochs: int, batch_global: int) -> int:
    return epochs * (TRAIN_PAIRS // batch_global)


def variants() -> dict[str, Experiment]:
    """`released` (the published code), `released_live` (dropout in its frozen text tower too), `paper` (lr, decay,
    epochs, batch and frozen layers as the paper has them), `vit` (ViT-tiny in place of ResNet-18), and `demo` on
    synthetic ECGs."""
    released = Experiment(
        name="merl_released",
        summary="MERL ResNet-18 with the released code's settings",
        seed=42,
        # MERL reads reports whole.
        data=DataSpec(
            sources=(Source(cohort="mimic_iv_ecg"),),
            batch_global=1024,
            statement_kinds=STATEMENT_KINDS,
            min_report_words=4,
        ),
        signal=merl(),
        ecg_encoder=ResNet1DSpec(depth=18, norm_groups=8),
        text_encoder=BertSpec(
            weights=TEXT_MODEL,
            tokenizer=TokenizerSpec(source=TEXT_MODEL, max_tokens=256),
            hidden=768,
            layers=12,
            heads=12,
            intermediate=3072,
            dropout=0.0,
        ),
        objective=InfoNCESpec(
            temperature=0.07,
            direction="sum",
            uni_modal_weight=1.0,
            uni_modal_dropout=0.1,
            text_head=HeadSpec(kind="mlp", hidden=256),
        ),
        optimizer=OptimizerSpec(
            peak_lr=1e-3,
            end_lr=1e-8,
            schedule="warm_restarts",
            restart_steps=5000,
            weight_decay=1e-8,
            decay_all=True,
            frozen=("^text/",),
        ),
        # The released loop runs max_epochs + 1 = 21 epochs.
        run=RunSpec(steps=_epochs(21, 1024), log_every=50, checkpoint_every=2000),
    )
    paper = released.replace(
        {
            "name": "merl_paper",
            "summary": "MERL ResNet-18 with the paper's settings (by the author's word the code's values are a typo)",
            "data.batch_global": 4096,
            "optimizer.peak_lr": 2e-4,
            "optimizer.weight_decay": 1e-5,
            "optimizer.frozen": ("^text/embeddings/", "^text/layer[0-5]/"),
            "text_encoder.dropout": 0.1,
            "run.steps": _epochs(50, 4096),
            "run.checkpoint_every": 1000,
        }
    )
    demo = demo_sized(
        "merl_demo",
        "MERL's objective and pooling in small",
        released.objective.model_copy(update={"embedding_dim": 128, "text_head": HeadSpec(kind="mlp", hidden=128)}),
        {"ecg_encoder.pooling": "attention", "ecg_encoder.pool_width": 128, "data.statement_keep_probability": 0.4},
    )
    live = released.replace(
        {
            "name": "merl_released_live",
            "summary": "MERL ResNet-18 with the released code's settings and its text tower in train mode",
            "text_encoder.dropout": 0.1,
        }
    )
    vit = released.replace(
        {
            "name": "merl_vit",
            "summary": "MERL ViT-tiny with the released code's settings",
            "ecg_encoder": ViT1DSpec(norm_groups=8),
            "objective.ecg_head": HeadSpec(kind="mlp", hidden=256),
        }
    )
    return {"released": released, "released_live": live, "paper": paper, "vit": vit, "demo": demo}
