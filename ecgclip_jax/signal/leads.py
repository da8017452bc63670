"""Lead names and the linear algebra between the leads of a standard 12-lead ECG.

Six limb leads are projections of two independent voltages; the six chest leads are independent. So each of the
twelve is a linear combination of eight (I, II, V1-V6), and any two limb leads determine the other four.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64

from ecgclip_jax.spec.signal import LEADS_8, LEADS_12, LeadName

LIMB_LEADS: Final[tuple[LeadName, ...]] = LEADS_12[:6]
CHEST_LEADS: Final[tuple[LeadName, ...]] = LEADS_12[6:]

_LIMB_FROM_I_AND_II: Final = np.array(
    [
        [1.0, 0.0],  # I
        [0.0, 1.0],  # II
        [-1.0, 1.0],  # III = II - I (Einthoven)
        [-0.5, -0.5],  # aVR = -(I + II) / 2 (Goldberger)
        [1.0, -0.5],  # aVL = (I - III) / 2 = I - II / 2
        [-0.5, 1.0],  # aVF = (II + III) / 2 = II - I / 2
    ]
)

LEAD_BASIS: Final[Float64[np.ndarray, "12 8"]] = np.block(
    [[_LIMB_FROM_I_AND_II, np.zeros((6, 6))], [np.zeros((6, 2)), np.eye(6)]]
)
"""Rows: `LEADS_12`; columns: `LEADS_8`."""

# A name and what stands before it in files: "ECG lead II", "MDC_ECG_LEAD_V1" (ISO/IEEE 11073), French "DII",
# IEC 60601-2-25's "C1" for V1.
_LEAD_NAME: Final = re.compile(
    r"\s*(?:(?:mdc|ecg|ekg|lead)[\s_.:-]*)*"
    r"(?:d?(?P<limb>i{1,3})|d(?P<number>[123])|av(?P<augmented>[rlf])|[vc][ _-]?(?P<chest>[1-6]))\s*",
    re.IGNORECASE | re.ASCII,
)


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> LeadName | None:
    """The standard name of a lead in any usual spelling (`AVR`, `avr`, `Lead II`, `MDC_ECG_LEAD_V1`, `DII`), or None.

    Modified, inverted and unaugmented leads (`MLII`, `-aVR`, `V4R`, Wilson's `VR`, Frank's `vx`) are other leads: None.
    """
    match = _LEAD_NAME.fullmatch(name)
    if match is None:
        return None
    if match["chest"]:
        return CHEST_LEADS[int(match["chest"]) - 1]
    if match["augmented"]:
        return LIMB_LEADS[3 + "RLF".index(match["augmented"].upper())]
    return LIMB_LEADS[(int(match["number"]) if match["number"] else len(match["limb"])) - 1]


@lru_cache(maxsize=1024)
def derivation_matrix(leads: tuple[LeadName, ...]) -> Float64[np.ndarray, "12 n"]:
    """Coefficients that give all twelve leads from the leads at hand: `full = signal @ matrix.T`.

    A lead at hand is copied unchanged; one that the others determine is their least-squares combination; one that
    nothing determines is a row of NaN.

    Args:
        leads: distinct canonical names, the columns of the signal.
    """
    if len(set(leads)) != len(leads):
        raise ValueError(f"each lead once, got {leads}")
    at_hand = LEAD_BASIS[[LEADS_12.index(lead) for lead in leads]]  # n × 8
    matrix = LEAD_BASIS @ np.linalg.pinv(at_hand) if leads else np.zeros((12, 0))
    determined = np.abs(matrix @ at_hand - LEAD_BASIS).max(axis=1) < 1e-9
    matrix[np.abs(matrix) < 1e-12] = 0.0  # exact zeros, so that a gap stays out of what does not depend on it
    matrix[~determined] = np.nan
    for column, lead in enumerate(leads):
        matrix[LEADS_12.index(lead)] = np.eye(len(leads))[column]
    matrix.setflags(write=False)
    return matrix


def derive_missing_leads(
    signal_uv: Float32[np.ndarray, "time n"], leads: tuple[LeadName, ...]
) -> Float32[np.ndarray, "time 12"]:
    """All twelve leads in the order of `LEADS_12`: those at hand unchanged, those they determine derived, others NaN.

    A derived sample is NaN where any lead it is made of is NaN.
    """
    matrix = derivation_matrix(leads)
    full = np.full((signal_uv.shape[0], 12), np.nan, np.float32)
    for row, coefficients in enumerate(matrix):
        used = np.flatnonzero(coefficients)  # NaN rows are non-zero everywhere
        if used.size and not np.isnan(coefficients).any():
            full[:, row] = signal_uv[:, used] @ coefficients[used].astype(np.float32)
    return full


def einthoven_residual(limb_uv: Float32[np.ndarray, "time 6"]) -> Float32[np.ndarray, " time"]:
    """I + III - II, zero in an undisturbed recording; columns in the order of `LIMB_LEADS`."""
    return np.asarray(limb_uv[:, 0] + limb_uv[:, 2] - limb_uv[:, 1])


def goldberger_residuals(limb_uv: Float32[np.ndarray, "time 6"]) -> Float32[np.ndarray, "time 3"]:
    """Augmented leads minus what I and II make them (aVR, aVL, aVF); columns in the order of `LIMB_LEADS`."""
    return np.asarray(limb_uv[:, 3:] - limb_uv[:, :2] @ _LIMB_FROM_I_AND_II[3:].T.astype(np.float32))


__all__ = [
    "CHEST_LEADS",
    "LEADS_8",
    "LEADS_12",
    "LEAD_BASIS",
    "LIMB_LEADS",
    "canonical_lead",
    "derivation_matrix",
    "derive_missing_leads",
    "einthoven_residual",
    "goldberger_residuals",
]
