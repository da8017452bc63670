"""Every code has its concept, and the synthetic vocabulary is the synthetic world's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ecgclip_jax.signal.synthesis import FINDINGS
from ecgclip_jax.text.concepts import CONCEPTS, UNSEEN_CONCEPTS, VOCABULARIES, codes_to_concepts, concepts_in


def test_the_synthetic_vocabulary_is_the_findings() -> None:
    assert concepts_in("synthetic") == FINDINGS
    assert {code for c in CONCEPTS.values() for code in c.codes["synthetic"]} == set(FINDINGS)
    for finding in FINDINGS:
        assert finding in codes_to_concepts("synthetic", [finding])


def test_wide_concepts_gather_narrower_ones() -> None:
    assert codes_to_concepts("synthetic", ["inferior_stemi"]) == {
        "inferior_stemi",
        "inferior_infarction",
        "acute_myocardial_infarction",
        "myocardial_infarction",
        "st_elevation",
        "st_segment_abnormality",
        "st_t_abnormality",
    }
    assert not any(CONCEPTS[key].wide for key in concepts_in("scp"))
    assert "myocardial_infarction" in concepts_in("scp", wide=True)


def test_scp_codes_state_what_they_say() -> None:
    assert codes_to_concepts("scp", ["NORM", "SR"]) == {"normal_ecg", "sinus_rhythm"}
    assert {"posterior_infarction", "inferior_infarction"} <= codes_to_concepts("scp", ["IPMI"])
    assert "atrial_fibrillation" not in codes_to_concepts("scp", ["AFLT"])
    assert codes_to_concepts("scp", ["AF"]) == set()  # by exact code, never by substring


def test_unknown_vocabulary_is_an_error() -> None:
    with pytest.raises(KeyError, match="no concept table"):
        codes_to_concepts("icd9", ["410"])


def test_unseen_concepts_exist() -> None:
    assert len(UNSEEN_CONCEPTS) >= 3
    assert set(FINDINGS) >= UNSEEN_CONCEPTS


def test_keys_name_themselves() -> None:
    assert all(key == concept.key and set(concept.codes) == set(VOCABULARIES) for key, concept in CONCEPTS.items())


def test_all_scp_codes_of_ptb_xl_are_mapped(shared_data: Path) -> None:
    with (shared_data / "ptbxl" / "scp_statements.csv").open(encoding="utf-8") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    assert len(rows) == 71
    assert all(codes_to_concepts("scp", [code]) for code in rows)
    assert {code for c in CONCEPTS.values() for code in c.codes["scp"]} == set(rows)
    superclass = {
        "MI": "myocardial_infarction",
        "STTC": "st_t_abnormality",
        "CD": "conduction_disturbance",
        "HYP": "hypertrophy",
        "NORM": "normal_ecg",
    }
    for code, row in rows.items():
        stated = codes_to_concepts("scp", [code])
        for name, concept in superclass.items():
            assert (row["diagnostic_class"] == name) == (concept in stated), (code, concept)
