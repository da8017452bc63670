"""Lead names in every spelling, and the algebra of the limb leads against hand-written formulas."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgclip_jax.signal.leads import (
    CHEST_LEADS,
    LEAD_BASIS,
    LIMB_LEADS,
    canonical_lead,
    derivation_matrix,
    derive_missing_leads,
    einthoven_residual,
    goldberger_residuals,
)
from ecgclip_jax.spec.signal import LEADS_8, LEADS_12, LeadName


def twelve_leads(n_samples: int = 50, seed: int = 0) -> np.ndarray:
    """Random I, II, V1-V6 and the other four by the textbook's formulas."""
    random = np.random.default_rng(seed)
    one, two = random.normal(0, 500, (2, n_samples))
    three = two - one
    limb = [one, two, three, -(one + two) / 2, (one - three) / 2, (two + three) / 2]
    return np.stack([*limb, *random.normal(0, 500, (6, n_samples))], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        *((lead, lead) for lead in LEADS_12),
        *((lead.lower(), lead) for lead in LEADS_12),
        *((lead.upper(), lead) for lead in LEADS_12),
        *((f"MDC_ECG_LEAD_{lead.upper()}", lead) for lead in LEADS_12),
        *((f"Lead {lead}", lead) for lead in LEADS_12),
        ("ECG lead aVF", "aVF"),
        ("ECG-II", "II"),
        (" V1 ", "V1"),
        ("V-1", "V1"),
        ("C3", "V3"),
        ("DII", "II"),
        ("D1", "I"),
    ],
)
def test_every_usual_spelling(spelling: str, lead: str) -> None:
    assert canonical_lead(spelling) == lead


OTHER_LEADS = (
    *("MLII", "-aVR", "VR", "vx", "vy", "vz", "V7", "V4R", "V10", "aVRR", "IV", "IIII", "I-II", "I.II", "V1-V2"),
    *("", " ", "ECG", "ECG1", "RESP", "lead", "\u2160"),
)


@pytest.mark.parametrize("name", OTHER_LEADS)
def test_other_leads_are_not_taken_for_standard_ones(name: str) -> None:
    assert canonical_lead(name) is None


@pytest.mark.parametrize("pair", list(combinations(LIMB_LEADS, 2)))
def test_any_two_limb_leads_and_the_chest_leads_give_twelve(pair: tuple[LeadName, LeadName]) -> None:
    full = twelve_leads()
    leads: tuple[LeadName, ...] = (*reversed(CHEST_LEADS), *pair)  # the order of the columns must not matter
    derived = derive_missing_leads(full[:, [LEADS_12.index(lead) for lead in leads]], leads)
    np.testing.assert_allclose(derived, full, atol=2e-3)


def test_leads_at_hand_stay_bit_for_bit_even_against_the_algebra() -> None:
    full = twelve_leads()
    full[:, 3] += 100.0
    derived = derive_missing_leads(full[:, [0, 1, 3, 6]], ("I", "II", "aVR", "V1"))
    np.testing.assert_array_equal(derived[:, [0, 1, 3, 6]], full[:, [0, 1, 3, 6]])


def test_what_nothing_determines_stays_missing() -> None:
    full = twelve_leads()
    derived = derive_missing_leads(full[:, [1, 6]], ("II", "V1"))
    assert np.isnan(derived).all(axis=0).tolist() == [lead not in ("II", "V1") for lead in LEADS_12]
    assert np.isnan(derive_missing_leads(full[:, :0], ())).all()


def test_a_gap_spreads_only_to_what_is_made_of_it() -> None:
    signal_uv = twelve_leads()[:, [0, 1, *range(6, 12)]].copy()
    signal_uv[10, 0] = np.nan  # lead I
    signal_uv[20, 4] = np.nan  # V3
    derived = derive_missing_leads(signal_uv, LEADS_8)
    missing = [[LEADS_12[lead] for lead in np.flatnonzero(np.isnan(derived[sample]))] for sample in (10, 20, 30)]
    assert missing == [["I", "III", "aVR", "aVL", "aVF"], ["V3"], []]


def test_more_leads_than_needed_share_the_noise() -> None:
    full = twelve_leads(20_000)
    noisy = full + np.random.default_rng(1).normal(0, 10, full.shape).astype(np.float32)
    two = derive_missing_leads(noisy[:, [0, 1]], ("I", "II"))[:, 5] - full[:, 5]
    five = derive_missing_leads(noisy[:, :5], LIMB_LEADS[:5])[:, 5] - full[:, 5]
    assert five.std() < 0.8 * two.std()


@settings(max_examples=50, deadline=None)
@given(st.sets(st.sampled_from(LEADS_12)))
def test_the_matrix_derives_exactly_what_the_rank_allows(leads: set[str]) -> None:
    at_hand = tuple(sorted(leads, key=LEADS_12.index))
    matrix = derivation_matrix(at_hand)
    basis = LEAD_BASIS[[LEADS_12.index(lead) for lead in at_hand]]
    for row, lead in enumerate(LEADS_12):
        with_it = np.linalg.matrix_rank(np.vstack([basis, LEAD_BASIS[row]]))
        determined = bool(at_hand) and with_it == np.linalg.matrix_rank(basis)
        if not determined:
            assert lead not in at_hand
            assert not at_hand or np.isnan(matrix[row]).all()
        else:
            np.testing.assert_allclose(matrix[row] @ basis, LEAD_BASIS[row], atol=1e-12)


def test_a_lead_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="each lead once"):
        derivation_matrix(("I", "I"))


def test_residuals() -> None:
    limb_uv = twelve_leads()[:, :6]
    np.testing.assert_allclose(einthoven_residual(limb_uv), 0, atol=1e-3)
    np.testing.assert_allclose(goldberger_residuals(limb_uv), 0, atol=1e-3)
    limb_uv[:, 4] += 50
    limb_uv[:, 2] += 20
    np.testing.assert_allclose(einthoven_residual(limb_uv), 20, atol=1e-3)
    np.testing.assert_allclose(goldberger_residuals(limb_uv), np.tile([0, 50, 0], (50, 1)), atol=1e-3)
