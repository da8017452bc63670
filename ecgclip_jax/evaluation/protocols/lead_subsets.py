"""Fewer leads: the same ECGs with leads marked as missing, for a model that was trained on more.

Leads are taken from the stored ECG, before anything of the model's input is made, so that filters, normalisation and
derived leads see what a device with fewer leads would have given: with I and II a model whose input derives limb leads
(`SignalSpec.missing_leads`) still has all six.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int16

from ecgclip_jax.spec.signal import LEADS_8, LEADS_12, MISSING_UV, STORED_LEADS, LeadName

LEAD_SUBSETS: Mapping[str, tuple[LeadName, ...]] = MappingProxyType(
    {
        "12 leads": LEADS_12,
        "8 leads": LEADS_8,
        "6 leads": ("I", "II", "III", "aVR", "aVL", "aVF"),
        "3 leads": ("I", "II", "V2"),
        "2 leads": ("I", "II"),
        "1 lead": ("I",),
    }
)
"""All; the independent ones, which ECGCLIP's released code reads; the limb leads; and what small devices record, where
lead I alone is CLEF's. Which three and which two leads is our choice."""


def only_leads(
    ecg_uv: Int16[np.ndarray, "records time 12"], leads: Collection[LeadName]
) -> Int16[np.ndarray, "records time 12"]:
    """A copy of stored ECGs in which all leads but `leads` are missing (-32768)."""
    kept: Bool[np.ndarray, "12"] = np.array([lead in leads for lead in STORED_LEADS])
    reduced: np.ndarray = np.where(kept, ecg_uv, np.int16(MISSING_UV))
    return reduced
