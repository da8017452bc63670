"""Supervised baselines: labels, age, what the cart measured, and survival as in ECGCLIP's released prognosis code.

    ecgclip train experiments/supervised.py --variant survival --workdir runs/survival

`survival` is that code's task: ResNet-34 on eight leads, Adam 1e-3, batch 64, five years in intervals of an eighth of a
year. Its cohort is not public; MIMIC-IV-ECG stands in, cosine decay stands in for halving the rate every ten epochs,
and the number of steps is ours. `labels`, `age` and `measurements` are ours, for cohorts that have them. `*_demo` and
`*_smoke` run on synthetic ECGs.
"""

from ecgclip_jax.spec.encoders import ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import ObjectiveSpec, SupervisedSpec, SurvivalSpec
from ecgclip_jax.spec.signal import ecgclip
from ecgclip_jax.spec.small import demo_sized, smoke

LABELS = (
    "normal_ecg",
    "sinus_bradycardia",
    "sinus_tachycardia",
    "atrial_fibrillation",
    "premature_ventricular_complexes",
    "first_degree_av_block",
    "right_bundle_branch_block",
    "left_bundle_branch_block",
    "left_ventricular_hypertrophy",
    "anterior_stemi",
    "inferior_stemi",
    "old_anterior_infarction",
    "old_inferior_infarction",
    "st_depression",
    "t_wave_inversion",
    "left_axis_deviation",
)
CART_MEASUREMENTS = (
    "rr_interval_ms",
    "p_onset_ms",
    "p_end_ms",
    "qrs_onset_ms",
    "qrs_end_ms",
    "t_end_ms",
    "p_axis_deg",
    "qrs_axis_deg",
    "t_axis_deg",
)
"""Those of MIMIC-IV-ECG."""
DEMO_MEASUREMENTS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "axis_deg", "age_years")


def variants() -> dict[str, Experiment]:
    """`survival`, `labels`, `measurements`, each also as `_demo` and `_smoke`; `age`."""
    survival = Experiment(
        name="survival",
        summary="Discrete-time survival from a ResNet-34, as in ECGCLIP's released prognosis code",
        data=DataSpec(sources=(Source(cohort="mimic_iv_ecg"),), batch_global=64),
        signal=ecgclip(),
        ecg_encoder=ResNet1DSpec(depth=34, pooling="mean"),
        text_encoder=None,
        objective=SurvivalSpec(),
        optimizer=OptimizerSpec(peak_lr=1e-3, end_lr=1e-6, weight_decay=0.0),
        run=RunSpec(steps=50_000, log_every=50, checkpoint_every=1000),
    )
    made = {
        "survival": survival,
        "labels": survival.replace(
            {
                "name": "supervised_labels",
                "summary": "Labels of PTB-XL from a ResNet-34",
                "data.sources": (Source(cohort="ptb_xl"),),
                "objective": SupervisedSpec(label_vocabulary="scp", labels=LABELS),
                "run.steps": 10_000,
            }
        ),
        "age": survival.replace(
            {
                "name": "supervised_age",
                "summary": "Age from a ResNet-34",
                "data.sources": (Source(cohort="ptb_xl"),),
                "objective": SupervisedSpec(measurements=("age_years",)),
                "run.steps": 10_000,
            }
        ),
    }
    made["measurements"] = survival.replace(
        {
            "name": "supervised_measurements",
            "summary": "Rate, intervals and axes, as the cart measured them, from a ResNet-34",
            "objective": SupervisedSpec(measurements=CART_MEASUREMENTS),
        }
    )
    small: dict[str, tuple[ObjectiveSpec, dict[str, float]]] = {
        "survival": (SurvivalSpec(survival_at_start=0.97), {"optimizer.peak_lr": 5e-4}),
        "labels": (SupervisedSpec(labels=LABELS), {}),
        "measurements": (SupervisedSpec(measurements=DEMO_MEASUREMENTS), {"optimizer.peak_lr": 1e-3}),
    }
    for name, (objective, changes) in small.items():
        demo = demo_sized(f"{made[name].name}_demo", f"{made[name].summary}, in small", objective, changes)
        made |= {f"{name}_demo": demo, f"{name}_smoke": smoke(demo)}
    return made
