"""Labels by rule: what a report states, from its text alone, and what it does not state."""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.text.concepts import UNSEEN_CONCEPTS, codes_to_concepts, widened
from ecgclip_jax.text.hospital_reports import HOSPITAL_STYLES, write_hospital_report
from ecgclip_jax.text.report_labels import report_concepts
from ecgclip_jax.text.report_writer import report_phrases
from ecgclip_jax.text.reports import clean_report, report_statements

NAMED = sorted(f for f, lists in report_phrases().items() if lists["clinical"] and f != "normal_ecg")


def stated(report: str, language: str = "en") -> frozenset[str]:
    return report_concepts(report_statements(report, clean_report(report)), language)


@pytest.mark.parametrize(
    ("report", "language", "there", "absent"),
    [
        ("Incomplete right bundle branch block.", "en", {"incomplete_right_bundle_branch_block"},
         {"right_bundle_branch_block"}),
        ("Possible LVH. Sinus tach.", "en", {"left_ventricular_hypertrophy", "sinus_tachycardia"}, set()),
        ("No ST depression. T wave inversion without pericarditis.", "en", {"t_wave_inversion"},
         {"st_depression", "pericarditis"}),
        ("No abnormality detected.", "en", {"normal_ecg"}, set()),
        ("Otherwise normal ECG. Abnormal ECG.", "en", set(), {"normal_ecg"}),
        ("NSR. When compared with ECG of yesterday, atrial fibrillation has replaced sinus rhythm.", "en",
         {"sinus_rhythm"}, {"atrial_fibrillation"}),
        ("EKG, VHF, V.a. LSB.", "de", {"atrial_fibrillation", "left_bundle_branch_block"}, set()),
        ("Reviewed by Dr. Lvhson. Rate 80 /min, PR 150 ms.", "en", set(), {"left_ventricular_hypertrophy"}),
    ],
)  # fmt: skip
def test_a_wording_states_its_concept_unless_negated_or_about_another_tracing(
    report: str, language: str, there: set[str], absent: set[str]
) -> None:
    found = stated(report, language)
    assert widened(there) <= found
    assert not absent & found


def test_synthetic_reports_of_every_style_state_what_they_were_written_from_and_nothing_never_named() -> None:
    rng = np.random.default_rng(0)
    told, true, false = 0, 0, 0
    for seed in range(600):
        findings = {str(f) for f in rng.choice(NAMED, 2, replace=False)}
        style = sorted(HOSPITAL_STYLES)[seed % len(HOSPITAL_STYLES)]
        report = write_hospital_report(findings, {"heart_rate_bpm": 70.0}, style, seed)
        found = stated(report, "de" if style.startswith("german") else "en")
        truth = codes_to_concepts("synthetic", findings)
        told, true, false = told + len(found & truth), true + len(truth), false + len(found - truth)
        assert not found & UNSEEN_CONCEPTS
    assert told > 0.8 * true, "readers leave out a tenth"
    assert false < 0.08 * true, "readers invent a few"
