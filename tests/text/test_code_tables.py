"""The tables of codes hold together: one meaning per code, a known source per row, wider concepts by rule."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from ecgclip_jax.evaluation.registry import the_89
from ecgclip_jax.text import code_tables
from ecgclip_jax.text.code_tables import VOCABULARIES, TableError, code_rows, keys_of, read_table
from ecgclip_jax.text.concepts import CONCEPT_TABLE_VERSION, CONCEPTS, codes_to_concepts, widened

DATA = Path(code_tables.__file__).parent / "data"
TABLES_SHA = {"2.2.1": "7bc299530378133309dd0dea3a1eae2d369e826431784f652a262a65decbea6a"}
"""Version → hash of all tables together. A changed table needs a new version; then its hash is written here."""


def tables_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([DATA / "concepts.csv", *(DATA / "codes").glob("*.csv")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def test_a_changed_table_has_a_new_version() -> None:
    assert tables_hash() == TABLES_SHA[CONCEPT_TABLE_VERSION]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_rows_are_whole(vocabulary: str) -> None:
    sources = {row["source"] for row in read_table("sources.csv")}
    rows = code_rows(vocabulary)
    assert rows
    for code, row in rows.items():
        assert row.text, code
        assert row.source in sources, code
        assert set(row.concepts) <= set(CONCEPTS), code
        assert keys_of(vocabulary, code)[-1] == code, "a code that is not in its vocabulary's normal form is never met"
        assert row.note or not row.but_not, "an exception says why"
        assert row.reviewed_by == "", "no clinician has reviewed a row yet: say so in concepts.py when one has"


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_rows_name_only_the_narrowest_concepts(vocabulary: str) -> None:
    for row in code_rows(vocabulary).values():
        for concept in row.concepts:
            others = [c for c in row.concepts if c != concept]
            assert concept not in widened(others), (vocabulary, row.code, concept)


def test_wider_concepts_are_wide_and_hold_the_codes_of_narrower_ones() -> None:
    excepted = {
        (v, code, concept) for v in VOCABULARIES for code, row in code_rows(v).items() for concept in row.but_not
    }
    for narrow in CONCEPTS.values():
        for wide in widened([narrow.key]) - {narrow.key}:
            assert CONCEPTS[wide].wide, (narrow.key, wide)
            assert narrow.key not in widened([wide]), "two concepts that follow from each other are one"
            for vocabulary in VOCABULARIES:
                lost = set(narrow.codes[vocabulary]) - set(CONCEPTS[wide].codes[vocabulary])
                assert all((vocabulary, code, wide) in excepted for code in lost), (narrow.key, wide, lost)


def test_only_form_statements_of_ptb_xl_are_excepted() -> None:
    found = {(v, code) for v in VOCABULARIES for code, row in code_rows(v).items() if row.but_not}
    assert found == {("scp", code) for code in ("INVT", "LOWT", "NT_", "STD_", "STE_", "TAB_")}


def test_every_concept_can_be_stated() -> None:
    """By a code, or by a task that reads it off a measurement."""
    measured = {task.concept for task in the_89() if task.group == "echo"}
    assert all(any(concept.codes.values()) or key in measured for key, concept in CONCEPTS.items())


def test_one_finding_is_one_concept_in_every_vocabulary() -> None:
    """Ten findings and their codes, written down by hand from the vocabularies' own texts."""
    by_hand = {
        "atrial_fibrillation": ("AFIB", "164889003", "50", "AF", "2", "Atrial fibrillation", "I48.91"),
        "first_degree_av_block": ("1AVB", "270492004", None, "1dAVb", "3", "with 1st degree AV block", "I44.0"),
        "right_bundle_branch_block": ("CRBBB", "59118001", "106", "RBBB", "5", "Right bundle branch block", "I45.10"),
        "left_bundle_branch_block": ("CLBBB", "164909002", "104", "LBBB", "4", "Left bundle branch block", "I44.7"),
        "sinus_bradycardia": ("SBRAD", "426177001", "22", "SB", None, "Sinus bradycardia", None),
        "sinus_tachycardia": ("STACH", "427084000", "21", "ST", None, "Sinus tachycardia", None),
        "ventricular_tachycardia": (None, "164895002", "70", None, None, "Ventricular tachycardia", "I47.2"),
        "st_depression": ("STD_", "429622005", "145+362", None, "8", None, None),
        "third_degree_av_block": ("3AVB", "27885002", "88", None, None, "with complete heart block", "I44.2"),
        "left_ventricular_hypertrophy": ("LVH", "164873001", "142", None, None, "Left ventricular hypertrophy", None),
    }  # fmt: skip
    for concept, codes in by_hand.items():
        for vocabulary, code in zip(
            ("scp", "snomed", "aha", "code15", "cpsc2018", "12sl", "icd10"), codes, strict=True
        ):
            if code is not None:
                stated = codes_to_concepts(vocabulary, [code])
                assert concept in stated, (vocabulary, code)
                assert stated <= widened([concept]), (vocabulary, code, stated)


def test_codes_match_whole_or_by_their_own_hierarchy() -> None:
    assert codes_to_concepts("snomed", ["4889003", "16488900", "AF"]) == set()
    assert codes_to_concepts("12sl", ["possible septal infarct, age undetermined"]) == set()
    assert "anterior_infarction" in codes_to_concepts("12sl", ["Septal infarct , age undetermined."])
    assert codes_to_concepts("icd10", ["I48.92"]) == codes_to_concepts("icd10", ["I483"]) == {"atrial_flutter"}
    assert codes_to_concepts("icd10", ["I48.9"]) == set(), "I48.9 may be either: only its children say which"
    assert codes_to_concepts("icd10", ["I21.02"]) >= {"anterior_infarction", "acute_myocardial_infarction"}
    assert codes_to_concepts("icd10", ["I2", "I", ""]) == set()
    assert codes_to_concepts("aha", ["60+310"]) == codes_to_concepts("aha", ["60"])
    assert codes_to_concepts("aha", ["60+310+341"]) >= {"ventricular_bigeminy", "premature_ventricular_complexes"}
    assert "st_elevation" not in codes_to_concepts("aha", ["145+362"])
    assert codes_to_concepts("aha", ["160+332"]) >= {"anterior_infarction", "old_myocardial_infarction"}


def test_what_an_earlier_tracing_showed_is_stated_by_no_12sl_row() -> None:
    for code, row in code_rows("12sl").items():
        if "no longer" in code or code.startswith("qt has") or code.endswith("variant"):
            assert not row.concepts, code


def test_tables_that_contradict_themselves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    header = ["code", "text", "concepts", "but_not", "certainty", "source", "note", "reviewed_by"]

    def given(*lines: str) -> None:
        rows = list(csv.DictReader([",".join(header), *lines]))
        monkeypatch.setattr(code_tables, "read_table", lambda name: iter(rows))
        code_rows.cache_clear()

    try:
        given("A,a,sinus_rhythm,,exact,s,,", "A,b,atrial_flutter,,exact,s,,")
        with pytest.raises(TableError, match=r"codes/scp\.csv has the code 'A' twice"):
            code_rows("scp")
        given("A,a,,,exact,s,,")
        with pytest.raises(TableError, match="expected certainty 'none' without concepts"):
            code_rows("scp")
    finally:
        code_rows.cache_clear()
