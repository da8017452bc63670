"""Statements of reports: where they end, what is none, and lines that cleaning joined."""

from __future__ import annotations

import pytest

from ecgclip_jax.text.reports import clean_report, report_statements
from ecgclip_jax.text.statements import split_statements


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("Sinus rhythm. Left axis deviation.", ("Sinus rhythm", "Left axis deviation")),
        ("SINUS RHYTHM\nLONG QT\r\n", ("SINUS RHYTHM", "LONG QT")),
        ("ward tracing; long  QT;\tperhaps LVH.", ("ward tracing", "long QT", "perhaps LVH")),
        ("ST depression of 0.2 mV in V4. QRS .12 s", ("ST depression of 0.2 mV in V4", "QRS .12 s")),
        ("Long QT. long qt. Normal", ("Long QT", "Normal")),
        ("12. 4.46 . Rate 72", ("Rate 72",)),
        ("Non-specific terminal T wave inversion", ("Non-specific terminal T wave inversion",)),
        ("  \n ", ()),
        ("", ()),
    ],
)
def test_statements_end_where_a_reader_would_stop(text: str, statements: tuple[str, ...]) -> None:
    assert split_statements(text) == statements


def test_lines_are_taken_from_the_raw_report_without_what_is_no_finding() -> None:
    raw = "*** AUTOMATED ANALYSIS ***\nSINUS RHYTHM\nLONG QT\nUNCONFIRMED REPORT"
    assert clean_report(raw) == "SINUS RHYTHM LONG QT"
    assert report_statements(raw, clean_report(raw)) == ("SINUS RHYTHM", "LONG QT")


def test_labels_that_an_editor_appended_are_no_statements() -> None:
    raw = "sinusrhythmus. linkstyp.\nEdit: IMI 100,\nLVH 80"
    assert report_statements(raw, clean_report(raw)) == ("sinusrhythmus", "linkstyp")


def test_a_report_that_was_cleaned_otherwise_is_split_as_it_is() -> None:
    raw = "SINUS RHYTHM\nLONG QT"
    assert report_statements(raw, clean_report(raw, "merl")) == ("sinus rhythm long qt",)
