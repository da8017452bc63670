"""Which findings can stand on one tracing: drawn candidates in, a set that a heart can show out.

Left bundle branch block hides an infarct, a paced rhythm hides nearly everything, one rhythm rules at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

RHYTHMS = (
    "paced_rhythm",
    "ventricular_tachycardia",
    "third_degree_av_block",
    "second_degree_av_block_mobitz_2",
    "second_degree_av_block_mobitz_1",
    "junctional_rhythm",
    "supraventricular_tachycardia",
    "atrial_flutter",
    "atrial_fibrillation",
)
"""Rhythms that exclude each other, the one that hides the others first; sinus rhythm is what is left."""

SINUS_RATES = ("sinus_tachycardia", "sinus_bradycardia", "sinus_arrhythmia")
ECTOPY = ("ventricular_bigeminy", "premature_ventricular_complexes", "premature_atrial_complexes")
CONDUCTION = (
    "ventricular_preexcitation",
    "left_bundle_branch_block",
    "right_bundle_branch_block",
    "incomplete_right_bundle_branch_block",
)
FASCICULAR = ("left_posterior_fascicular_block", "left_anterior_fascicular_block")
VENTRICULAR_SIZE = ("right_ventricular_hypertrophy", "low_qrs_voltage", "left_ventricular_hypertrophy")
ATRIAL_SIZE = ("right_atrial_enlargement", "left_atrial_enlargement")
ACUTE = ("posterior_infarction", "lateral_stemi", "inferior_stemi", "anterior_stemi")
OLD = ("old_anterior_infarction", "old_inferior_infarction")
ST_T = (
    *ACUTE,
    "pericarditis",
    "early_repolarisation",
    "hyperkalaemia",
    "hypokalaemia",
    "st_depression",
    "t_wave_inversion",
    "nonspecific_st_t_changes",
)
QT = ("short_qt", "long_qt")
AXIS = ("right_axis_deviation", "left_axis_deviation")
QRS_T = frozenset((*CONDUCTION, *FASCICULAR, *VENTRICULAR_SIZE, *OLD, *ST_T, *QT, *AXIS))

EXCLUSIVE: tuple[tuple[str, ...], ...] = (
    RHYTHMS,
    SINUS_RATES,
    ECTOPY,
    CONDUCTION,
    FASCICULAR,
    VENTRICULAR_SIZE,
    ST_T,
    QT,
    AXIS,
    ("dextrocardia", "arm_lead_reversal"),
)
"""Of each of these groups at most the first present stays."""

HIDES: dict[str, frozenset[str]] = {
    "paced_rhythm": QRS_T | {"premature_atrial_complexes", "ventricular_bigeminy", *ATRIAL_SIZE},
    "ventricular_tachycardia": QRS_T | {*ATRIAL_SIZE, *ECTOPY},
    "third_degree_av_block": frozenset({*ECTOPY, "ventricular_preexcitation", *QT}),
    "second_degree_av_block_mobitz_2": frozenset({*ECTOPY, "ventricular_preexcitation"}),
    "second_degree_av_block_mobitz_1": frozenset({*ECTOPY, "ventricular_preexcitation"}),
    "junctional_rhythm": frozenset({*ATRIAL_SIZE, *ECTOPY, "ventricular_preexcitation"}),
    "supraventricular_tachycardia": frozenset(
        {*ATRIAL_SIZE, *ECTOPY, *QT, "ventricular_preexcitation", "hypokalaemia"}
    ),
    "atrial_flutter": frozenset({*ATRIAL_SIZE, *ECTOPY, "ventricular_preexcitation", *ST_T, *QT}),
    "atrial_fibrillation": frozenset(
        {*ATRIAL_SIZE, "premature_atrial_complexes", "ventricular_bigeminy", "ventricular_preexcitation"}
    ),
    "ventricular_preexcitation": frozenset(
        {"first_degree_av_block", *FASCICULAR, *VENTRICULAR_SIZE, *OLD, *ST_T, *QT, *AXIS}
    ),
    "left_bundle_branch_block": frozenset({*FASCICULAR, *VENTRICULAR_SIZE, *OLD, *ST_T, *AXIS}),
    "right_bundle_branch_block": frozenset({"right_ventricular_hypertrophy", "posterior_infarction", *AXIS}),
    "left_anterior_fascicular_block": frozenset({*AXIS, "right_ventricular_hypertrophy", "old_inferior_infarction"}),
    "left_posterior_fascicular_block": frozenset({*AXIS, "right_ventricular_hypertrophy"}),
    "right_ventricular_hypertrophy": frozenset({*AXIS, "posterior_infarction", *OLD}),
    "left_ventricular_hypertrophy": frozenset({"early_repolarisation", "t_wave_inversion", "nonspecific_st_t_changes"}),
    "anterior_stemi": frozenset({"old_anterior_infarction"}),
    "posterior_infarction": frozenset({"old_anterior_infarction"}),
    "inferior_stemi": frozenset({"old_inferior_infarction"}),
    "pericarditis": frozenset(OLD),
    "early_repolarisation": frozenset(OLD),
    "low_qrs_voltage": frozenset(OLD),
    "old_inferior_infarction": frozenset(AXIS),
    "dextrocardia": frozenset({*OLD, *ACUTE, *FASCICULAR, *AXIS, "right_ventricular_hypertrophy"}),
    "arm_lead_reversal": frozenset({*AXIS, *FASCICULAR}),
}
"""A finding that stays → findings that cannot be seen beside it."""

_NOT_SINUS = frozenset({*SINUS_RATES, "first_degree_av_block"})


def compatible(candidates: Iterable[str]) -> frozenset[str]:
    """The candidates that can stand on one tracing; rhythm decides first, then conduction, then the rest."""
    present = set(candidates)
    for group in EXCLUSIVE:
        _keep_first(present, group)
        for finding in group:
            if finding in present:
                present -= HIDES.get(finding, frozenset())
        if group is RHYTHMS and not present.isdisjoint(RHYTHMS):
            present -= _NOT_SINUS
    for finding in OLD:
        if finding in present:
            present -= HIDES.get(finding, frozenset())
    return frozenset(present)


def _keep_first(present: set[str], group: tuple[str, ...]) -> None:
    """Drops all of `group` but the first one present."""
    kept = False
    for finding in group:
        if finding in present:
            if kept:
                present.discard(finding)
            kept = True
