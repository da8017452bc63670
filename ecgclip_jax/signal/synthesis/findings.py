"""What a patient of the synthetic world can have: the tables that decide prevalence, persistence and confounding.

A finding is visible on the tracing and may stand in a report. A target (echo, rare disease, risk factor) never stands
in a report; it shares hidden severities with findings and waveform, so it can be predicted, but only partly.

Everything is a liability model (Falconer 1965): liability = loadings · severities + noise, variance one, and the
finding is present above the threshold that gives its prevalence. All figures are ours: they make a demonstration
world with enough positives, and describe no real population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Group = Literal["rhythm", "conduction", "hypertrophy", "infarction", "repolarisation", "axis", "technical", "summary"]
TargetGroup = Literal["echo", "rare", "risk"]

SEVERITIES = (
    "systolic_dysfunction",
    "pressure_overload",
    "right_overload",
    "atrial_remodelling",
    "infiltration",
    "ischaemic_burden",
    "metabolic_load",
    "situs",
    "age",
)
"""Hidden standard normal severities of a patient; `age` is the standardised age in years."""


@dataclass(frozen=True)
class Finding:
    """An ECG diagnosis. `probability` is that of the draw, before incompatible findings exclude each other.

    `persistence` in [0, 1] is the share of unexplained liability that belongs to the patient, not to the recording;
    None stands for a finding that is derived from the tracing (rate, axis, nothing abnormal) and not drawn.
    """

    key: str
    group: Group
    probability: float
    persistence: float | None
    loadings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A label that no report names. `prevalence` is exact in expectation; the rest of the liability is noise."""

    key: str
    group: TargetGroup
    prevalence: float
    loadings: Mapping[str, float]


FINDING_TABLE: tuple[Finding, ...] = (
    Finding("normal_ecg", "summary", 0.0, None),
    # rhythm
    Finding("sinus_rhythm", "rhythm", 0.0, None),
    Finding("sinus_bradycardia", "rhythm", 0.130, 0.4, {"metabolic_load": -0.3}),
    Finding("sinus_tachycardia", "rhythm", 0.130, 0.1, {"metabolic_load": 0.4}),
    Finding("sinus_arrhythmia", "rhythm", 0.130, 0.4, {"age": -0.4}),
    Finding("atrial_fibrillation", "rhythm", 0.120, 0.8, {"atrial_remodelling": 0.5, "age": 0.3}),
    Finding("atrial_flutter", "rhythm", 0.080, 0.3, {"atrial_remodelling": 0.4, "right_overload": 0.2}),
    Finding("supraventricular_tachycardia", "rhythm", 0.075, 0.1, {"age": -0.2}),
    Finding("junctional_rhythm", "rhythm", 0.070, 0.2, {"infiltration": 0.2}),
    Finding("ventricular_tachycardia", "rhythm", 0.050, 0.1, {"systolic_dysfunction": 0.4, "ischaemic_burden": 0.3}),
    Finding("premature_atrial_complexes", "rhythm", 0.160, 0.4, {"atrial_remodelling": 0.4, "age": 0.2}),
    Finding("premature_ventricular_complexes", "rhythm", 0.140, 0.4, {"systolic_dysfunction": 0.4}),
    Finding("ventricular_bigeminy", "rhythm", 0.080, 0.2, {"systolic_dysfunction": 0.3}),
    Finding("first_degree_av_block", "rhythm", 0.130, 0.8, {"infiltration": 0.3, "age": 0.3}),
    Finding("second_degree_av_block_mobitz_1", "rhythm", 0.060, 0.2, {"age": -0.1}),
    Finding("second_degree_av_block_mobitz_2", "rhythm", 0.055, 0.3, {"infiltration": 0.3, "age": 0.2}),
    Finding("third_degree_av_block", "rhythm", 0.055, 0.4, {"infiltration": 0.3, "age": 0.3}),
    Finding("paced_rhythm", "rhythm", 0.055, 1.0, {"age": 0.4}),
    # conduction
    Finding("right_bundle_branch_block", "conduction", 0.090, 1.0, {"right_overload": 0.4, "age": 0.2}),
    Finding("left_bundle_branch_block", "conduction", 0.075, 1.0, {"systolic_dysfunction": 0.5, "age": 0.2}),
    Finding("incomplete_right_bundle_branch_block", "conduction", 0.090, 0.9, {"right_overload": 0.3}),
    Finding("left_anterior_fascicular_block", "conduction", 0.085, 0.9, {"pressure_overload": 0.3, "age": 0.2}),
    Finding("left_posterior_fascicular_block", "conduction", 0.065, 0.9, {"ischaemic_burden": 0.2}),
    Finding("ventricular_preexcitation", "conduction", 0.060, 0.9, {"age": -0.3}),
    # hypertrophy and voltage
    Finding("left_ventricular_hypertrophy", "hypertrophy", 0.130, 0.95, {"pressure_overload": 0.6, "age": 0.1}),
    Finding("right_ventricular_hypertrophy", "hypertrophy", 0.080, 0.95, {"right_overload": 0.6}),
    Finding("left_atrial_enlargement", "hypertrophy", 0.130, 0.9, {"atrial_remodelling": 0.6}),
    Finding("right_atrial_enlargement", "hypertrophy", 0.100, 0.9, {"right_overload": 0.5}),
    Finding("low_qrs_voltage", "hypertrophy", 0.090, 0.9, {"infiltration": 0.6}),
    # infarction
    Finding("anterior_stemi", "infarction", 0.065, 0.0, {"ischaemic_burden": 0.35}),
    Finding("inferior_stemi", "infarction", 0.060, 0.0, {"ischaemic_burden": 0.35}),
    Finding("lateral_stemi", "infarction", 0.055, 0.0, {"ischaemic_burden": 0.35}),
    Finding("posterior_infarction", "infarction", 0.050, 0.0, {"ischaemic_burden": 0.35}),
    Finding("old_anterior_infarction", "infarction", 0.085, 1.0, {"ischaemic_burden": 0.5, "age": 0.2}),
    Finding("old_inferior_infarction", "infarction", 0.090, 1.0, {"ischaemic_burden": 0.5, "age": 0.2}),
    # repolarisation
    Finding("st_depression", "repolarisation", 0.100, 0.2, {"ischaemic_burden": 0.4}),
    Finding("t_wave_inversion", "repolarisation", 0.120, 0.4, {"ischaemic_burden": 0.3}),
    Finding("nonspecific_st_t_changes", "repolarisation", 0.130, 0.4, {"ischaemic_burden": 0.2, "metabolic_load": 0.2}),
    Finding("pericarditis", "repolarisation", 0.060, 0.1, {"age": -0.2}),
    Finding("early_repolarisation", "repolarisation", 0.080, 0.9, {"age": -0.4}),
    Finding("hyperkalaemia", "repolarisation", 0.065, 0.1, {"metabolic_load": 0.4}),
    Finding("hypokalaemia", "repolarisation", 0.070, 0.1, {"metabolic_load": 0.2}),
    Finding("long_qt", "repolarisation", 0.075, 0.6, {"metabolic_load": 0.3}),
    Finding("short_qt", "repolarisation", 0.060, 0.8, {"age": -0.1}),
    # axis
    Finding("left_axis_deviation", "axis", 0.050, 0.9, {"pressure_overload": 0.3, "age": 0.2}),
    Finding("right_axis_deviation", "axis", 0.040, 0.9, {"right_overload": 0.4}),
    # position of heart and electrodes
    Finding("dextrocardia", "technical", 0.045, 1.0, {"situs": 0.95}),
    Finding("arm_lead_reversal", "technical", 0.045, 0.0, {}),
)

FINDINGS: tuple[str, ...] = tuple(f.key for f in FINDING_TABLE)
"""Keys in column order of `SyntheticBatch.findings`; the concept keys of the vocabulary `synthetic`."""

TARGET_TABLE: tuple[Target, ...] = (
    Target("lvef_40_or_less", "echo", 0.15, {"systolic_dysfunction": 0.60, "ischaemic_burden": 0.25, "age": 0.10}),
    Target("lv_dilatation", "echo", 0.12, {"systolic_dysfunction": 0.60, "pressure_overload": 0.15}),
    Target("lv_wall_13_mm_or_more", "echo", 0.20, {"pressure_overload": 0.60, "infiltration": 0.20, "age": 0.10}),
    Target("aortic_stenosis", "echo", 0.08, {"pressure_overload": 0.45, "age": 0.35}),
    Target(
        "mitral_regurgitation", "echo", 0.15, {"atrial_remodelling": 0.45, "systolic_dysfunction": 0.30, "age": 0.15}
    ),
    Target(
        "left_atrial_dilatation", "echo", 0.20, {"atrial_remodelling": 0.60, "pressure_overload": 0.15, "age": 0.15}
    ),
    Target("rv_dysfunction", "echo", 0.10, {"right_overload": 0.60, "systolic_dysfunction": 0.20}),
    Target("pulmonary_hypertension", "echo", 0.12, {"right_overload": 0.55, "atrial_remodelling": 0.25, "age": 0.15}),
    Target("pericardial_effusion", "echo", 0.06, {"infiltration": 0.55}),
    # ECGCLIP names Ebstein anomaly, constrictive pericarditis, dextrocardia and amyloidosis; the fifth is our choice.
    Target("cardiac_amyloidosis", "rare", 0.03, {"infiltration": 0.55, "pressure_overload": 0.20, "age": 0.30}),
    Target("hypertrophic_cardiomyopathy", "rare", 0.04, {"pressure_overload": 0.60, "age": -0.20}),
    Target("ebstein_anomaly", "rare", 0.03, {"right_overload": 0.60, "atrial_remodelling": 0.25}),
    Target("constrictive_pericarditis", "rare", 0.03, {"infiltration": 0.45, "atrial_remodelling": 0.40}),
    Target("situs_inversus", "rare", 0.03, {"situs": 0.60}),
    Target("hypertension", "risk", 0.35, {"pressure_overload": 0.50, "age": 0.35}),
    Target("diabetes", "risk", 0.20, {"metabolic_load": 0.50, "ischaemic_burden": 0.20, "age": 0.20}),
    Target("coronary_disease", "risk", 0.20, {"ischaemic_burden": 0.55, "age": 0.30}),
    Target("kidney_disease", "risk", 0.12, {"metabolic_load": 0.50, "age": 0.30}),
    Target("smoking", "risk", 0.25, {"ischaemic_burden": 0.30, "right_overload": 0.35, "metabolic_load": 0.15}),
)

TARGETS: tuple[str, ...] = tuple(t.key for t in TARGET_TABLE)
"""Keys in column order of `SyntheticBatch.targets`."""
