"""Reports of the ten hospitals, German ones included: reproducible, incomplete, silent about what no tracing shows."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from ecgclip_jax.evaluation.registry import the_89
from ecgclip_jax.signal.hospitals.world import ReportStyle, load_world
from ecgclip_jax.signal.synthesis import FINDINGS
from ecgclip_jax.text.concepts import CONCEPTS, UNSEEN_CONCEPTS
from ecgclip_jax.text.hospital_reports import (
    HOSPITAL_STYLES,
    german_phrases,
    hospital_writer_fingerprint,
    write_hospital_report,
)
from ecgclip_jax.text.prompts import load_prompts
from ecgclip_jax.text.report_writer import STYLES, write_report

NUMBERS = {"heart_rate_bpm": 71.6, "pr_ms": 160.0, "qrs_ms": 92.0, "qtc_ms": 411.0, "axis_deg": 40.0}
NEVER = (
    *("dextrokard", "dextrocard", "situs", "hyperkal", "kalium", "potassium", "amyloid", "ebstein", "konstrikt"),
    *("constrictive", "kardiomyopath", "cardiomyopath", "ejektion", "ejection", "lvef", "stenos", "insuffizienz"),
    *("regurgitation", "dilat", "erguss", "effusion", "hypertonie", "hypertens", "diabet", "niere", "renal", "raucher"),
    *("smok", "koronar", "coronary", "echo", "klappe", "valve", "risiko", "risk", "strain rate", "aneurysm", "prolaps"),
    *(
        "septumdefekt",
        "septal defect",
        "strahl",
        "füllungsdruck",
        "filling",
        "mmhg",
        "aortenwurzel",
        "aortic",
        "mitral ",
    ),
)


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


@pytest.fixture(scope="module")
def reports() -> dict[str, list[str]]:
    """By style: every finding alone and with a neighbour, some seeds each."""
    return {
        style: [
            write_hospital_report({finding, other}, NUMBERS, style, 7 * k + seed)
            for k, (finding, other) in enumerate(zip(FINDINGS, (*FINDINGS[5:], *FINDINGS[:5]), strict=True))
            for seed in range(6)
        ]
        for style in HOSPITAL_STYLES
    }


def test_every_hospital_has_a_style_and_german_knows_every_finding() -> None:
    assert set(HOSPITAL_STYLES) == set(get_args(ReportStyle))
    assert {h.report_style for h in load_world().hospitals} == set(HOSPITAL_STYLES)
    assert set(german_phrases()) == set(FINDINGS)
    for finding, entry in german_phrases().items():
        named = bool(entry["german"]) and bool(entry["german_short"])
        assert named == (finding not in UNSEEN_CONCEPTS), finding
        assert entry["features"]


def test_nothing_that_no_tracing_shows_is_written(reports: dict[str, list[str]]) -> None:
    texts = [text.lower() for of_style in reports.values() for text in of_style]
    phrases = [p.lower() for entry in german_phrases().values() for several in entry.values() for p in several]
    boilerplate = [p.lower() for s in HOSPITAL_STYLES.values() for p in (*s.openings, *s.closings, *s.hedges)]
    hidden = [CONCEPTS[task.concept].name.lower() for task in the_89() if task.group != "ecg"]
    for word in (*NEVER, *hidden):
        pattern = re.compile(rf"\b{re.escape(word)}")
        assert not [t for t in (*texts, *phrases, *boilerplate) if pattern.search(t)], word


def test_no_prompt_stands_in_a_report(reports: dict[str, list[str]]) -> None:
    for language in ("en", "de"):
        own = [style for style in reports if style.startswith("german") == (language == "de")]
        texts = [normalised(text) for style in own for text in reports[style]]
        for wordings in load_prompts(language).prompts.values():
            for wording in wordings:
                assert not any(normalised(wording) in text for text in texts), wording


def test_every_style_is_reproducible_and_its_own(reports: dict[str, list[str]]) -> None:
    for style, texts in reports.items():
        assert all(texts)
        assert write_hospital_report({FINDINGS[0], FINDINGS[5]}, NUMBERS, style, 0) == texts[0]
    assert sum("Sinusrhythmus" in t for t in reports["german"]) > 3
    joined = {style: "\n".join(texts) for style, texts in reports.items()}
    assert len(set(joined.values())) == len(joined)
    assert not re.search(r"[äöüß]", "".join(joined[s] for s in (*STYLES, "telegram")))


def test_the_writers_three_styles_are_unchanged() -> None:
    for style in STYLES:
        assert write_hospital_report({"long_qt"}, NUMBERS, style, 3) == write_report({"long_qt"}, NUMBERS, style, 3)
    assert re.fullmatch(r"[0-9a-f]{16}", hospital_writer_fingerprint())
    with pytest.raises(KeyError, match="no report style"):
        write_hospital_report({"long_qt"}, NUMBERS, "latin", 0)
