"""Report cleaning, MERL's cleaning against hand-made results, emptiness, and the guess of the language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgclip_jax.text.reports import clean_report, guess_language, report_flags


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("sinus rhythm.  normal\tecg.", "sinus rhythm. normal ecg."),
        ("sinusrhythmus linkstyp 4.46             unbestÄtigter bericht", "sinusrhythmus linkstyp"),
        ("inferiorer infarkt     alter unbest. 4.46   unbestÄtigter bericht", "inferiorer infarkt alter unbest."),
        ("hochlaterale ischÄmie 4.46                 unbestÄtigter beri", "hochlaterale ischämie"),
        ("linksbelastung 4.46", "linksbelastung"),
        ("mÄssige amplitudenkriterien f#r linkshypertrophie", "mässige amplitudenkriterien für linkshypertrophie"),
        ("r-s #bergang in v ableitungen", "r-s übergang in v ableitungen"),
        ("Sinus rhythm, V1 QRS broad", "Sinus rhythm, V1 QRS broad"),
        ("sinus rhythm. Edit: IMI 100, LVH 80, Sokolow 3,5(IMI 100)", "sinus rhythm."),
        ("*** CONSIDER ACUTE STEMI ***", "CONSIDER ACUTE STEMI"),
        ("SINUS RHYTHM\nUNCONFIRMED REPORT", "SINUS RHYTHM"),
        ("SINUS RHYTHM\nREVIEWED BY PHYSICIAN\nLVH", "SINUS RHYTHM LVH"),
        ("sinus\x00 rhythm\x1b", "sinus rhythm"),
        ("sinusrytm vÄnster el-axel                     !", "sinusrytm vänster el-axel"),
        ("st & t abnorm", "st & t abnorm"),
        ("qrs < 120 ms", "qrs < 120 ms"),
        ("trace only requested.", ""),
        ("", ""),
        (" *** ", ""),
    ],
)
def test_plain_cleaning(raw: str, clean: str) -> None:
    assert clean_report(raw) == clean


@given(st.text())
def test_plain_cleaning_is_idempotent_and_single_spaced(text: str) -> None:
    once = clean_report(text)
    assert clean_report(once) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        # By hand from the released notebook: str.strip takes characters, not prefixes, and works at the ends only.
        ("Sinus rhythm. Abnormal EKG", "sinus rhythm. abnormal ecg."),
        ("*** Sinus rhythm ***", "sinus rhythm."),
        ("Sinus rhythm *** inside", "sinus rhythm *** inside."),
        ("=-Sinus rhythm--=", "sinus rhythm."),
        ("Sinus\trhythm\nNormal\rECG", "sinus rhythm normal ecg."),
        ("Already stopped.", "already stopped.."),
        ("Two  spaces", "two  spaces."),
        ("", "empty"),
        (" *** ", "empty"),
        ("==", "empty"),
    ],
)
def test_merl_cleaning(raw: str, clean: str) -> None:
    assert clean_report(raw, "merl") == clean


@pytest.mark.parametrize(
    ("report", "flags"),
    [
        ("sinus rhythm.", ()),
        ("", ("report_empty",)),
        (" \n", ("report_empty",)),
        ("trace only requested.", ("report_boilerplate",)),
        ("normal ecg. Edit: NORM 100", ("report_labels_removed",)),
        ("trace only requested. Edit: NORM 100, TOR, ", ("report_labels_removed", "report_boilerplate")),
    ],
)
def test_flags(report: str, flags: tuple[str, ...]) -> None:
    assert report_flags(report) == flags


@pytest.mark.parametrize(
    ("report", "language"),
    [
        ("sinus rhythm. normal ecg.", "en"),
        ("SINUS TACHYCARDIA\nLEFT AXIS DEVIATION", "en"),
        ("sinusrhythmus lagetyp normal normales ekg", "de"),
        ("Sinusrhythmus, Linkstyp, kein Infarkt", "de"),
        ("sinusrhythmus a-v block i", "de"),
        ("sinusrytm vÄnster el-axel normalt ekg", "sv"),
        ("ospecifik t-fÖrÄndring sÅsom vid ischemi", "sv"),
        ("", "unknown"),
        ("4.46", "unknown"),
        ("心房颤动", "unknown"),
    ],
)
def test_language(report: str, language: str) -> None:
    assert guess_language(report) == language
