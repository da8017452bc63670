"""Cohorts that hold the same recordings."""

from __future__ import annotations

from ecgclip_jax.text.shared_records import cohorts_sharing_records, shared_records


def test_the_challenge_holds_what_it_was_made_of() -> None:
    held = cohorts_sharing_records("challenge2021")
    assert {"cpsc2018", "ptb_xl", "ptb", "incart", "chapman_shaoxing_ningbo"} <= set(held)
    assert held["chapman_shaoxing_ningbo"] == ("training/chapman_shaoxing", "training/ningbo")
    assert cohorts_sharing_records("cpsc2018") == {"challenge2021": ("training/cpsc_2018",)}
    assert cohorts_sharing_records("echonext") == {}


def test_two_collections_share_through_a_third() -> None:
    assert cohorts_sharing_records("challenge2025")["challenge2021"] == ("through ptb_xl",)
    assert "code15" not in cohorts_sharing_records("ptb_xl"), "parts of one collection share nothing for it"


def test_sharing_is_mutual() -> None:
    cohorts = {c for row in shared_records() for c in (row.cohort, row.other)}
    for cohort in cohorts:
        for other in cohorts_sharing_records(cohort):
            assert cohort in cohorts_sharing_records(other)


def test_ids_translate() -> None:
    by_part = {row.part: row for row in shared_records()}
    assert by_part["training/ptb-xl"].other_id("HR00042") == "42"
    assert by_part["training/ptb-xl"].other_id("E00042") is None
    assert by_part["training/ningbo"].other_id("JS20000") == "JS20000"
    assert by_part["training/ptb"].other_id("S0001") is None


def test_chapman_shaoxing_ningbo_is_whole_in_the_challenge() -> None:
    parts = [row.n_records or 0 for row in shared_records() if row.other == "chapman_shaoxing_ningbo"]
    assert sum(parts) == 45_152  # ecg-arrhythmia 1.0.0
