"""Which statements of a report become training text: findings, what is denied and doubted; the rest by request."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.index import build_index, load_index
from ecgclip_jax.data.tags import make_statement_table
from ecgclip_jax.evaluation.training_reports import read_training_reports
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.statements import STATEMENT_KINDS, TRAINING_KINDS

MUSE = "Sinus rhythm\nPossible LVH\nNo ectopy\nWhen compared with ECG of 03-MAR-2011,\nPR interval has increased"
REPORTS = (
    (MUSE, " ".join(MUSE.split()), "en"),
    ("Sinus rhythm. 61-year-old man. Chest pain.", "Sinus rhythm. 61-year-old man. Chest pain.", "en"),
    ("No previous tracing for comparison.", "No previous tracing for comparison.", "en"),
    ("Sinusrytm. Oförändrat.", "Sinusrytm. Oförändrat.", "sv"),
)
BY_DEFAULT = ("Sinus rhythm. Possible LVH. No ectopy", "Sinus rhythm.", "Sinusrytm. Oförändrat.")
DATA = DataSpec(sources=(Source(cohort="tiny"),))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    records = [
        tiny_record(n, report_raw=raw, report_clean=clean, report_language=language)
        for n, (raw, clean, language) in enumerate(REPORTS)
    ]
    write_cohort(folder, {"train": records})
    return folder


def test_by_default_the_tower_reads_what_the_tracing_shows(data_dir: Path) -> None:
    index = build_index(DATA, data_dir, seed=0)
    assert index.texts == tuple(sorted(BY_DEFAULT)), "lines are told apart in the raw report"
    assert index.left_out == ({"report_missing": 1},), "a report of which nothing is left is none"
    assert TRAINING_KINDS == ("finding", "negated", "hedged", "untyped")


@pytest.mark.parametrize(
    ("kinds", "first", "records"),
    [
        (STATEMENT_KINDS, " ".join(MUSE.split()), 4),
        (("finding",), "Sinus rhythm", 2),
        (("comparison",), "When compared with ECG of 03-MAR-2011. PR interval has increased", 2),
    ],
)
def test_other_kinds_by_request(kinds: tuple[str, ...], first: str, records: int, data_dir: Path) -> None:
    index = build_index(DATA.replace({"statement_kinds": kinds}), data_dir, seed=0)
    assert len(index) == records
    assert index.texts[index.text_row[0]] == first


def test_words_are_counted_in_what_is_read(data_dir: Path) -> None:
    index = build_index(DATA.replace({"min_report_words": 3}), data_dir, seed=0)
    assert index.column("record_id") == ["r0000"]
    seen = build_index(DATA.replace({"min_report_words": 3}), data_dir, seed=0, reads_text=False)
    assert len(seen) == 4, "an objective that reads nothing leaves nobody out"


def test_raw_reports_are_typed_too(data_dir: Path) -> None:
    index = build_index(DATA.replace({"report_field": "report_raw"}), data_dir, seed=0)
    assert "Sinus rhythm. Possible LVH. No ectopy" in index.texts


def test_tags_are_of_the_same_kinds(data_dir: Path) -> None:
    data = DATA.replace({"texts_per_ecg": 2})
    for field in ("report_clean", "report_raw"):
        index = build_index(data.replace({"report_field": field}), data_dir, seed=0)
        statements = {"Sinus rhythm", "Possible LVH", "No ectopy", "Sinusrytm", "Oförändrat"}
        assert set(make_statement_table(index).texts) == {"", *statements}
    whole = build_index(data.replace({"statement_kinds": STATEMENT_KINDS}), data_dir, seed=0)
    assert "61-year-old man" in make_statement_table(whole).texts


def test_the_kinds_belong_to_what_a_run_is(data_dir: Path, tmp_path: Path) -> None:
    index = build_index(DATA, data_dir, seed=0)
    index.save(tmp_path)
    assert load_index(tmp_path, DATA, data_dir, seed=0).fingerprint == index.fingerprint
    other = DATA.replace({"statement_kinds": ("finding", "negated", "hedged", "untyped", "history")})
    assert build_index(other, data_dir, seed=0).fingerprint != index.fingerprint


def test_an_evaluation_knows_what_was_read(data_dir: Path) -> None:
    assert "61-year-old" not in read_training_reports(DATA, data_dir).text
    assert "61-year-old" in read_training_reports(DATA.replace({"statement_kinds": STATEMENT_KINDS}), data_dir).text
