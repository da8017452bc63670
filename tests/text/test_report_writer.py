"""Synthetic reports: reproducible, incomplete as real ones are, and silent about what no tracing shows."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ecgclip_jax.signal.synthesis import DEFAULT_WORLD, FINDINGS, HOSPITALS, TARGETS, TRAINING_HOSPITALS
from ecgclip_jax.signal.synthesis.patients import draw_findings, draw_patient, keyed_generator
from ecgclip_jax.signal.synthesis.recording import make_recording
from ecgclip_jax.text.concepts import UNSEEN_CONCEPTS
from ecgclip_jax.text.prompts import load_prompts
from ecgclip_jax.text.report_writer import STYLES, report_phrases, write_report, writer_fingerprint

NUMBERS = {"heart_rate_bpm": 71.6, "pr_ms": 160.0, "qrs_ms": 92.0, "qtc_ms": 411.0, "axis_deg": 40.0}
NEVER_WRITTEN = (
    *("dextrocard", "situs", "hyperkal", "potassium", "amyloid", "ebstein", "constrictive", "cardiomyopathy"),
    *("ejection", "lvef", "stenosis", "regurgitation", "dilat", "effusion", "hypertens", "diabet", "kidney", "renal"),
    *("smok", "coronary", "echo", "risk", "lipid", "dysfunction"),
)
NAMES_OF_UNSEEN = (*NEVER_WRITTEN[:4], "posterior infarct", "posterior mi", "posterior stemi", "posterior wall")


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


@pytest.fixture(scope="module")
def reports() -> dict[str, list[tuple[frozenset[str], str]]]:
    """Findings and reports of two hundred patients per hospital."""
    written = {}
    for hospital in HOSPITALS:
        rows = []
        for number in range(200):
            patient = draw_patient(DEFAULT_WORLD, hospital, number, 3)
            rng = keyed_generator(3, hospital, number, 1)
            seen = make_recording(DEFAULT_WORLD, patient, draw_findings(patient, hospital, rng), rng, render=False)
            text = write_report(seen.findings, seen.measurements, hospital.report_style, int(rng.integers(2**62)))
            rows.append((seen.findings, text))
        written[hospital.name] = rows
    return written


def test_every_style_of_the_world_exists() -> None:
    assert {h.report_style for h in HOSPITALS} == set(STYLES)
    assert set(report_phrases()) == set(FINDINGS)


def test_equal_arguments_give_equal_text() -> None:
    for style in STYLES:
        a, b = (write_report({"atrial_fibrillation", "long_qt"}, NUMBERS, style, 5) for _ in range(2))
        assert a == b
    assert len({write_report({"atrial_fibrillation"}, NUMBERS, "clinical", seed) for seed in range(40)}) > 10


def test_no_report_is_empty(reports: dict[str, list[tuple[frozenset[str], str]]]) -> None:
    assert all(text.strip() for rows in reports.values() for _, text in rows)
    unnameable = [write_report({"hyperkalaemia"}, NUMBERS, style, s) for style in STYLES for s in range(50)]
    assert all(unnameable)


def test_reports_never_name_targets_or_unseen_concepts(reports: dict[str, list[tuple[frozenset[str], str]]]) -> None:
    texts = [normalised(text) for rows in reports.values() for _, text in rows]
    texts += [
        normalised(write_report({key}, NUMBERS, style, seed))
        for key in FINDINGS
        for style in STYLES
        for seed in range(6)
    ]
    phrases = [p for entry in report_phrases().values() for several in entry.values() for p in several]
    phrases += [p for style in STYLES.values() for p in (*style.openings, *style.closings, *style.hedges)]
    for word in (*NEVER_WRITTEN, *NAMES_OF_UNSEEN, *(t.replace("_", " ") for t in TARGETS)):
        assert not any(re.search(rf"\b{word}", text) for text in (*texts, *map(normalised, phrases))), word
    assert all(not report_phrases()[key][style] for key in UNSEEN_CONCEPTS for style in STYLES)


def test_no_prompt_stands_in_a_report(reports: dict[str, list[tuple[frozenset[str], str]]]) -> None:
    texts = [normalised(text) for rows in reports.values() for _, text in rows]
    for wordings in load_prompts("en").prompts.values():
        for wording in wordings:
            assert not any(normalised(wording) in text for text in texts), wording


def test_over_half_omit_waveform_features(reports: dict[str, list[tuple[frozenset[str], str]]]) -> None:
    features = [normalised(f) for entry in report_phrases().values() for f in entry["features"]]
    for name, rows in reports.items():
        describing = [any(f in normalised(t) for f in features) or re.search(r"\d+ ms", t.lower()) for _, t in rows]
        assert 0.05 < np.mean([bool(d) for d in describing]) < 0.5, name


def test_some_present_findings_are_omitted(reports: dict[str, list[tuple[frozenset[str], str]]]) -> None:
    for hospital in TRAINING_HOSPITALS:
        mentioned = [
            any(normalised(p) in normalised(text) for p in report_phrases()[finding][hospital.report_style])
            for findings, text in reports[hospital.name]
            for finding in findings - UNSEEN_CONCEPTS - {"sinus_rhythm"}
        ]
        assert 0.8 < np.mean(mentioned) < 0.97


def test_hospitals_write_differently() -> None:
    text = {style: write_report({"atrial_fibrillation", "long_qt"}, NUMBERS, style, 1) for style in STYLES}
    assert text["machine"] == text["machine"].upper()
    assert len(set(text.values())) == len(STYLES)


def test_unknown_style_or_finding_is_an_error() -> None:
    with pytest.raises(KeyError, match="no report style"):
        write_report({"normal_ecg"}, NUMBERS, "poetic", 0)
    with pytest.raises(KeyError):
        write_report({"broken_heart"}, NUMBERS, "clinical", 0)


def test_the_fingerprint_is_stable() -> None:
    assert writer_fingerprint() == writer_fingerprint()
    assert re.fullmatch(r"[0-9a-f]{16}", writer_fingerprint())
