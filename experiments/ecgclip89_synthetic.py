"""ECGCLIP and its attribution ladder on the ten synthetic hospitals, for the suite of 89 tasks.

    ecgclip train experiments/ecgclip89_synthetic.py --variant small --workdir runs/ecgclip89
    ecgclip evaluate runs/ecgclip89 --suite ecgclip89_small

`small` is ECGCLIP in small, a declared narrow encoder at 100 Hz: ResNet-34 of an eighth of the width, so that training,
ladder and suite take less than an hour on a laptop CPU. The ladder leads to it from MERL's ResNet-18, one change per
row, all on the same records with the same optimiser and steps; the suite trains the rows it lacks. What is known of the
full sizes stands in `merl.py` and `ecgclip.py`; sizes, steps and rates here are our choice.

Two baselines train the same encoder on the same records: `supervised` on labels that rules find in the same reports,
`simclr` on the ECGs alone. Of the three self-supervised objectives of `ecg_only.py` SimCLR learnt best in small; here
it sees all leads, as the others do, in half as many steps: each shows the encoder two views of every ECG.
"""

from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec, SimCLRSpec, SupervisedSpec
from ecgclip_jax.spec.signal import LEADS_8, AugmentSpec, Bandpass, MainsNotch, SignalSpec, ecgclip, merl

COHORT = "synthetic_hospitals"
REPORT_LABELS = (
    "normal_ecg",
    "sinus_rhythm",
    "sinus_bradycardia",
    "sinus_tachycardia",
    "sinus_arrhythmia",
    "atrial_fibrillation",
    "atrial_flutter",
    "supraventricular_tachycardia",
    "junctional_rhythm",
    "ventricular_tachycardia",
    "premature_atrial_complexes",
    "premature_ventricular_complexes",
    "ventricular_bigeminy",
    "first_degree_av_block",
    "second_degree_av_block_mobitz_1",
    "second_degree_av_block_mobitz_2",
    "third_degree_av_block",
    "paced_rhythm",
    "right_bundle_branch_block",
    "left_bundle_branch_block",
    "incomplete_right_bundle_branch_block",
    "left_anterior_fascicular_block",
    "left_posterior_fascicular_block",
    "ventricular_preexcitation",
    "left_ventricular_hypertrophy",
    "right_ventricular_hypertrophy",
    "left_atrial_enlargement",
    "right_atrial_enlargement",
    "low_qrs_voltage",
    "anterior_stemi",
    "inferior_stemi",
    "lateral_stemi",
    "old_anterior_infarction",
    "old_inferior_infarction",
    "st_depression",
    "t_wave_inversion",
    "nonspecific_st_t_changes",
    "pericarditis",
    "early_repolarisation",
    "hypokalaemia",
    "long_qt",
    "short_qt",
    "left_axis_deviation",
    "right_axis_deviation",
    "arm_lead_reversal",
)
"""Every finding that a report of this cohort may name."""


def variants() -> dict[str, Experiment]:
    """`small`, the ladder `merl_r18` → `ecgclip_input` → `ecgclip_loss` (→ `small`), the baselines `supervised` and
    `simclr`, the null world `shuffled_reports`, `full` for accelerators, and `smoke`."""
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
        # Reports of 22 tokens on average, packed: a sixth more ECG/s on two cores, and nothing cut short.
        memory=MemorySpec(packed_rows_per_text=0.25),
        run=RunSpec(steps=800, log_every=20, checkpoint_every=200),
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
        "supervised": small.replace(
            {
                "name": "ecgclip89_small_supervised",
                "summary": "ResNet-34, narrow, at 100 Hz, on labels that rules find in the reports",
                "text_encoder": None,
                "memory": MemorySpec(),
                "objective": SupervisedSpec(label_vocabulary="report_rules", labels=REPORT_LABELS),
            }
        ),
        "simclr": small.replace(
            {
                "name": "ecgclip89_small_simclr",
                "summary": "ResNet-34, narrow, at 100 Hz, on two views of each ECG, without reports",
                "text_encoder": None,
                "memory": MemorySpec(),
                "augment": AugmentSpec(
                    lead_mask_probability=0.2,
                    max_shift_s=0.5,
                    scale_range=0.2,
                    noise_mv=0.03,
                    wander_mv=0.05,
                    time_mask_probability=0.2,
                ),
                "objective": SimCLRSpec(
                    temperature=0.2, projector=HeadSpec(kind="mlp_norm", hidden=128), projector_dim=64
                ),
                "run.steps": 400,
            }
        ),
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
