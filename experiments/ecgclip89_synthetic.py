"""ECGCLIP and its attribution ladder on the ten synthetic hospitals, for the suite of 89 tasks.

    ecgclip train experiments/ecgclip89_synthetic.py --variant small --workdir runs/ecgclip89
    ecgclip evaluate runs/ecgclip89 --suite ecgclip89_small

`small` is ECGCLIP in small, a declared narrow encoder at 100 Hz: ResNet-34 of an eighth of the width, so that training,
ladder and suite take less than an hour on a laptop CPU. The ladder leads to it from MERL's ResNet-18, one change per
row, all on the same records with the same optimiser and steps; the suite trains the rows it lacks. What is known of the
full sizes stands in `merl.py` and `ecgclip.py`; sizes, steps and rates here are our choice.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import LEADS_8, Bandpass, MainsNotch, SignalSpec, ecgclip, merl

COHORT = "synthetic_hospitals"


def variants() -> dict[str, Experiment]:
    """`small`, the ladder `merl_r18` → `ecgclip_input` → `ecgclip_loss` (→ `small`), the null world `shuffled_reports`,
    `full` for accelerators, and `smoke`."""
    ecgclip_loss = Experiment(
        name="ecgclip89_small_ecgclip_loss",
        summary="ECGCLIP's input and loss with ResNet-18, narrow, at 100 Hz",
        data=DataSpec(sources=(Source(cohort=COHORT, split="train"),), batch_global=64),
        signal=SignalSpec(
            name="ecgclip_100hz",
            rate_hz=100,
            samples=1024,
            leads=LEADS_8,
            bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40.0),
            notch=MainsNotch(),
        ),
        ecg_encoder=ResNet1DSpec(depth=18, width=8, pool_width=128, pool_heads=4),
        text_encoder=BertSpec(
            hidden=128,
            layers=1,
            heads=4,
            intermediate=256,
            dropout=0.0,
            pooling="mean",
            tokenizer=TokenizerSpec(vocab_size=1500, max_tokens=64),
        ),
        objective=InfoNCESpec(
            embedding_dim=128, temperature=0.07, direction="sum", text_head=HeadSpec(kind="mlp", hidden=128)
        ),
        optimizer=OptimizerSpec(
            peak_lr=2e-3, end_lr=1e-5, schedule="cosine", warmup_steps=40, weight_decay=0.02, clip_norm=1.0
        ),
        run=RunSpec(steps=1000, log_every=20, checkpoint_every=250),
    )
    ecgclip_input = ecgclip_loss.replace(
        {
            "name": "ecgclip89_small_ecgclip_input",
            "summary": "ECGCLIP's input with MERL's loss and ResNet-18, narrow, at 100 Hz",
            "objective.uni_modal_weight": 1.0,
            "objective.uni_modal_dropout": 0.1,
        }
    )
    merl_r18 = ecgclip_input.replace(
        {
            "name": "ecgclip89_small_merl_r18",
            "summary": "MERL's ResNet-18, narrow, at 100 Hz",
            "signal": merl(name="merl_100hz", rate_hz=100, samples=1000),
        }
    )
    small = ecgclip_loss.replace(
        {
            "name": "ecgclip89_small",
            "summary": "ECGCLIP's input and loss with ResNet-34, narrow, at 100 Hz",
            "ecg_encoder.depth": 34,
        }
    )
    return {
        "small": small,
        "merl_r18": merl_r18,
        "ecgclip_input": ecgclip_input,
        "ecgclip_loss": ecgclip_loss,
        "shuffled_reports": small.replace(
            {"name": "ecgclip89_small_shuffled_reports", "data.null_world": "shuffled_reports"}
        ),
        "full": small.replace(
            {
                "name": "ecgclip89_full",
                "summary": "ECGCLIP's input and loss with ResNet-34 at full size",
                "signal": ecgclip(),
                "ecg_encoder": ResNet1DSpec(depth=34, dtype="bfloat16"),
                "objective.embedding_dim": 256,
                "data.batch_global": 512,
                "run.steps": 5000,
                "run.checkpoint_every": 500,
            }
        ),
        "smoke": small.replace(
            {
                "name": "ecgclip89_smoke",
                "ecg_encoder.depth": 18,
                "ecg_encoder.width": 4,
                "data.batch_global": 16,
                "run.steps": 4,
                "run.log_every": 2,
                "run.checkpoint_every": 2,
                "optimizer.warmup_steps": 2,
            }
        ),
    }
