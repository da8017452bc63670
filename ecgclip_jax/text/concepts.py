"""What can be asked of an ECG: concepts, and which codes of each label vocabulary state them.

A record's labels are codes of its own vocabulary, kept verbatim in the cohort. This versioned table says which concept
a code means, so that one set of prompts serves every cohort. Mapping is by exact code; a wide concept gathers
narrower ones. Unmapped means that no prompt asks for the code, never that the code was lost.

Provenance: `synthetic` codes are the finding keys of `ecgclip_jax.signal.synthesis`. `scp` codes and descriptions are
those of PTB-XL 1.0.3's `scp_statements.csv` (71 codes); the assignment to concepts was made for this project from the
descriptions and diagnostic superclasses in that file, and no clinician has reviewed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

VOCABULARIES = ("synthetic", "scp")


@dataclass(frozen=True)
class Concept:
    """A thing to ask for. `codes[vocabulary]` state it exactly; `wide` marks one that gathers narrower concepts."""

    key: str
    name: str
    meaning: str
    codes: Mapping[str, tuple[str, ...]]
    wide: bool


def _concept(key: str, name: str, meaning: str, scp: str = "") -> Concept:
    """A concept that the synthetic world draws under the same key; `scp` codes separated by spaces."""
    return Concept(key, name, meaning, {"synthetic": (key,), "scp": tuple(scp.split())}, wide=False)


def _other(key: str, name: str, meaning: str, scp: str, synthetic: str = "", *, wide: bool = True) -> Concept:
    """A concept that is no finding of the synthetic world, or gathers several of them."""
    return Concept(key, name, meaning, {"synthetic": tuple(synthetic.split()), "scp": tuple(scp.split())}, wide=wide)


_MI_ANTERIOR, _MI_INFERIOR = "AMI ASMI ALMI", "IMI ILMI IPMI IPLMI"
_INJURY = "INJAS INJAL INJIN INJLA INJIL"
_ISCHAEMIA = "ISC_ ISCAL ISCIN ISCIL ISCAS ISCLA ISCAN"
_BLOCKS = (
    "right_bundle_branch_block left_bundle_branch_block incomplete_right_bundle_branch_block "
    "left_anterior_fascicular_block left_posterior_fascicular_block ventricular_preexcitation first_degree_av_block "
    "second_degree_av_block_mobitz_1 second_degree_av_block_mobitz_2 third_degree_av_block"
)
_HYPERTROPHIES = (
    "left_ventricular_hypertrophy right_ventricular_hypertrophy left_atrial_enlargement right_atrial_enlargement"
)
_STEMI = "anterior_stemi inferior_stemi lateral_stemi"
_OLD_MI = "old_anterior_infarction old_inferior_infarction"
_ST_T = (
    "st_depression t_wave_inversion nonspecific_st_t_changes pericarditis early_repolarisation hyperkalaemia "
    "hypokalaemia long_qt short_qt"
)

_TABLE: tuple[Concept, ...] = (
    _concept("normal_ecg", "Normal ECG", "sinus rhythm and nothing abnormal", "NORM"),
    _concept("sinus_rhythm", "Sinus rhythm", "regular P before every QRS at 60-100/min", "SR"),
    _concept("sinus_bradycardia", "Sinus bradycardia", "sinus rhythm below 60/min", "SBRAD"),
    _concept("sinus_tachycardia", "Sinus tachycardia", "sinus rhythm above 100/min", "STACH"),
    _concept("sinus_arrhythmia", "Sinus arrhythmia", "sinus rate varies with breathing", "SARRH"),
    _concept("atrial_fibrillation", "Atrial fibrillation", "no P waves, irregular RR", "AFIB"),
    _concept("atrial_flutter", "Atrial flutter", "regular flutter waves near 300/min", "AFLT"),
    _concept("supraventricular_tachycardia", "Supraventricular tachycardia", "rapid, regular, narrow", "SVTAC PSVT"),
    _concept("junctional_rhythm", "Junctional rhythm", "narrow escape without preceding sinus P"),
    _concept("ventricular_tachycardia", "Ventricular tachycardia", "rapid, broad, dissociated"),
    _concept("premature_atrial_complexes", "Premature atrial complexes", "early P and narrow QRS", "PAC"),
    _concept("premature_ventricular_complexes", "Premature ventricular complexes", "early broad QRS", "PVC"),
    _concept("ventricular_bigeminy", "Ventricular bigeminy", "every second beat a ventricular ectopic"),
    _concept("first_degree_av_block", "First degree AV block", "PR above 200 ms, every P conducted", "1AVB"),
    _concept("second_degree_av_block_mobitz_1", "Mobitz I AV block", "PR lengthens until a beat drops"),
    _concept("second_degree_av_block_mobitz_2", "Mobitz II AV block", "beats drop with constant PR"),
    _concept("third_degree_av_block", "Third degree AV block", "atria and ventricles dissociated", "3AVB"),
    _concept("paced_rhythm", "Paced rhythm", "stimulus before broad QRS", "PACE"),
    _concept("right_bundle_branch_block", "Right bundle branch block", "rsR' in V1, QRS from 120 ms", "CRBBB"),
    _concept("left_bundle_branch_block", "Left bundle branch block", "broad notched R in V6", "CLBBB"),
    _concept("incomplete_right_bundle_branch_block", "Incomplete RBBB", "rsr' in V1, QRS below 120 ms", "IRBBB"),
    _concept("left_anterior_fascicular_block", "Left anterior fascicular block", "axis beyond -45°, rS in II", "LAFB"),
    _concept("left_posterior_fascicular_block", "Left posterior fascicular block", "right axis, qR in III", "LPFB"),
    _concept("ventricular_preexcitation", "Ventricular pre-excitation (WPW)", "short PR and delta wave", "WPW"),
    _concept("left_ventricular_hypertrophy", "Left ventricular hypertrophy", "high voltage, strain", "LVH"),
    _concept("right_ventricular_hypertrophy", "Right ventricular hypertrophy", "dominant R in V1, right axis", "RVH"),
    _concept("left_atrial_enlargement", "Left atrial enlargement", "broad notched P", "LAO/LAE"),
    _concept("right_atrial_enlargement", "Right atrial enlargement", "tall P in II", "RAO/RAE"),
    _concept("low_qrs_voltage", "Low QRS voltage", "limb leads below 0.5 mV", "LVOLT"),
    _concept("anterior_stemi", "Anterior STEMI", "ST elevation V1-V5"),
    _concept("inferior_stemi", "Inferior STEMI", "ST elevation II, III, aVF"),
    _concept("lateral_stemi", "Lateral STEMI", "ST elevation I, aVL, V5, V6"),
    _concept("posterior_infarction", "Posterior infarction", "ST depression and tall R in V1-V3", "PMI IPMI IPLMI"),
    _concept("old_anterior_infarction", "Old anterior infarction", "Q waves in V1-V4"),
    _concept("old_inferior_infarction", "Old inferior infarction", "Q waves in II, III, aVF"),
    _concept("st_depression", "ST depression", "subendocardial pattern", "STD_"),
    _concept("t_wave_inversion", "T wave inversion", "negative T in a territory", "INVT"),
    _concept("nonspecific_st_t_changes", "Non-specific ST-T changes", "flat T, little ST", "NDT NST_ NT_"),
    _concept("pericarditis", "Pericarditis", "diffuse ST elevation, PR depression"),
    _concept("early_repolarisation", "Early repolarisation", "J-point elevation, tall T"),
    _concept("hyperkalaemia", "Hyperkalaemia", "tall narrow T, flat P"),
    _concept("hypokalaemia", "Hypokalaemia", "flat T, prominent U"),
    _concept("long_qt", "Long QT", "QTc from about 480 ms", "LNGQT"),
    _concept("short_qt", "Short QT", "QTc below about 340 ms"),
    _concept("left_axis_deviation", "Left axis deviation", "frontal axis -30° to -90°"),
    _concept("right_axis_deviation", "Right axis deviation", "frontal axis beyond 95°"),
    _concept("dextrocardia", "Dextrocardia", "lead I inverted, R shrinks from V1 to V6"),
    _concept("arm_lead_reversal", "Arm lead reversal", "lead I inverted, chest leads normal"),
    # PTB-XL's diagnostic superclasses and families
    _other("myocardial_infarction", "Myocardial infarction", "any wall, any age (superclass MI)",
           f"{_MI_ANTERIOR} {_MI_INFERIOR} LMI PMI {_INJURY}", f"{_STEMI} {_OLD_MI} posterior_infarction"),
    _other("st_t_abnormality", "ST-T abnormality", "superclass STTC",
           f"NDT NST_ DIG LNGQT ANEUR EL {_ISCHAEMIA}", _ST_T),
    _other("conduction_disturbance", "Conduction disturbance", "superclass CD",
           "LAFB IRBBB 1AVB IVCD CRBBB CLBBB LPFB WPW ILBBB 3AVB 2AVB", _BLOCKS),
    _other("hypertrophy", "Hypertrophy", "superclass HYP", "LVH LAO/LAE RVH RAO/RAE SEHYP", _HYPERTROPHIES),
    _other("anterior_infarction", "Anterior infarction", "subclass AMI without injury codes",
           _MI_ANTERIOR, "anterior_stemi old_anterior_infarction"),
    _other("anteroseptal_infarction", "Anteroseptal infarction", "septum and anterior wall", "ASMI", wide=False),
    _other("inferior_infarction", "Inferior infarction", "with or without neighbouring walls",
           _MI_INFERIOR, "inferior_stemi old_inferior_infarction"),
    _other("lateral_infarction", "Lateral infarction", "with or without neighbouring walls",
           "LMI ALMI ILMI IPLMI", "lateral_stemi"),
    _other("second_degree_av_block", "Second degree AV block", "either type",
           "2AVB", "second_degree_av_block_mobitz_1 second_degree_av_block_mobitz_2"),
    _other("prolonged_pr_interval", "Prolonged PR interval", "as a measurement", "LPR 1AVB", "first_degree_av_block"),
    _other("ischaemic_st_t_changes", "Ischaemic ST-T changes", "any territory",
           _ISCHAEMIA, "st_depression t_wave_inversion"),
    _other("anterior_ischaemia", "Anterior ischaemia", "anterior, anteroseptal, anterolateral", "ISCAN ISCAS ISCAL"),
    _other("inferior_ischaemia", "Inferior ischaemia", "inferior, inferolateral", "ISCIN ISCIL"),
    _other("lateral_ischaemia", "Lateral ischaemia", "lateral, anterolateral, inferolateral", "ISCLA ISCAL ISCIL"),
    _other("subendocardial_injury", "Subendocardial injury", "any territory", _INJURY),
    _other("electrolyte_disturbance", "Electrolyte disturbance or drug", "physiopathological ST-T statement",
           "EL", "hyperkalaemia hypokalaemia"),
    _other("t_wave_abnormality", "T wave abnormality", "any abnormal T", "TAB_ NDT NT_ LOWT INVT", "t_wave_inversion"),
    _other("st_elevation", "ST elevation", "stated without its cause",
           "STE_", f"{_STEMI} pericarditis early_repolarisation"),
    _other("pathological_q_waves", "Q waves", "stated without a diagnosis", "QWAVE", _OLD_MI),
    _other("bigeminy", "Bigeminy", "of any origin", "BIGU", "ventricular_bigeminy"),
    _other("premature_complexes", "Premature complexes", "of any origin", "PRC(S) PAC PVC BIGU TRIGU",
           "premature_atrial_complexes premature_ventricular_complexes ventricular_bigeminy"),
    # statements of PTB-XL that the synthetic world does not draw
    _other("nonspecific_intraventricular_block", "Non-specific IVCD", "widened QRS of no type", "IVCD", wide=False),
    _other("incomplete_left_bundle_branch_block", "Incomplete LBBB", "LBBB shape, QRS below 120 ms",
           "ILBBB", wide=False),
    _other("septal_hypertrophy", "Septal hypertrophy", "thick septum", "SEHYP", wide=False),
    _other("voltage_criteria_lvh", "Voltage criteria for LVH", "without strain", "VCLVH", wide=False),
    _other("high_qrs_voltage", "High QRS voltage", "stated without a diagnosis", "HVOLT", wide=False),
    _other("digitalis_effect", "Digitalis effect", "scooped ST", "DIG", wide=False),
    _other("ventricular_aneurysm_st_t", "Aneurysm ST-T", "persistent ST elevation", "ANEUR", wide=False),
    _other("low_t_waves", "Low T waves", "low amplitude", "LOWT", wide=False),
    _other("abnormal_qrs", "Abnormal QRS", "stated without a diagnosis", "ABQRS", wide=False),
    _other("supraventricular_arrhythmia", "Supraventricular arrhythmia", "of no stated type", "SVARR", wide=False),
    _other("trigeminy", "Trigeminy", "of any origin", "TRIGU", wide=False),
)  # fmt: skip

CONCEPTS: dict[str, Concept] = {concept.key: concept for concept in _TABLE}

UNSEEN_CONCEPTS: frozenset[str] = frozenset({"dextrocardia", "hyperkalaemia", "posterior_infarction"})
"""Never named in any synthetic report (their waves may be described): results on them are reported apart."""


def codes_to_concepts(vocabulary: str, codes: Iterable[str]) -> set[str]:
    """Keys of every concept, wide ones included, that at least one of the codes states.

    Raises:
        KeyError: a vocabulary without a table. Unknown codes state nothing and raise nothing.
    """
    _require_table(vocabulary)
    stated = set(codes)
    return {key for key, concept in CONCEPTS.items() if not stated.isdisjoint(concept.codes[vocabulary])}


def concepts_in(vocabulary: str, *, wide: bool = False) -> tuple[str, ...]:
    """Concepts that codes of this vocabulary can state, in table order; wide ones only on request.

    Raises:
        KeyError: a vocabulary without a table.
    """
    _require_table(vocabulary)
    return tuple(k for k, c in CONCEPTS.items() if c.codes[vocabulary] and (wide or not c.wide))


def _require_table(vocabulary: str) -> None:
    if vocabulary not in VOCABULARIES:
        raise KeyError(f"no concept table for vocabulary {vocabulary!r}; there are {list(VOCABULARIES)}")
