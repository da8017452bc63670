"""Supervised baselines: labels, age, and survival as in ECGCLIP's released prognosis code.

    ecgclip train experiments/supervised.py --variant survival --workdir runs/survival

`survival` is that code's task: ResNet-34 on eight leads, Adam 1e-3, batch 64, five years in intervals of an eighth of a
year. Its cohort is not public; MIMIC-IV-ECG stands in, cosine decay stands in for halving the rate every ten epochs,
and the number of steps is ours. `labels` and `age` are ours, for cohorts that have them. `*_demo` and `*_smoke` run on
synthetic ECGs.
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


def variants() -> dict[str, Experiment]:
    """`survival`, `labels`, `age`, each also as `_demo` and `_smoke`."""
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
    small: dict[str, ObjectiveSpec] = {
        "survival": SurvivalSpec(),
        "labels": SupervisedSpec(labels=LABELS),
        "age": SupervisedSpec(measurements=("age_years",)),
    }
    for name, objective in small.items():
        demo = demo_sized(f"{made[name].name}_demo", f"{made[name].summary}, in small", objective)
        made |= {f"{name}_demo": demo, f"{name}_smoke": smoke(demo)}
    return made
