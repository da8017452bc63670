"""The synthetic world: patients, hospitals and ECGs on which every claim can be checked end to end.

Its numbers are always labelled synthetic. The way in is `synthesize_ecgs`; see DESIGN's rules for what may be claimed.
"""

from ecgclip_jax.signal.synthesis.clinical import CLINICAL
from ecgclip_jax.signal.synthesis.findings import FINDINGS, SEVERITIES, TARGET_TABLE, TARGETS
from ecgclip_jax.signal.synthesis.generate import SyntheticBatch, one_ecg_per_finding, synthesize_ecgs
from ecgclip_jax.signal.synthesis.recording import MEASUREMENTS
from ecgclip_jax.signal.synthesis.world import (
    DEFAULT_WORLD,
    EXTERNAL_HOSPITALS,
    HOSPITALS,
    TRAINING_HOSPITALS,
    Device,
    Hospital,
    WorldSpec,
    world_fingerprint,
)

__all__ = [
    "CLINICAL",
    "DEFAULT_WORLD",
    "EXTERNAL_HOSPITALS",
    "FINDINGS",
    "HOSPITALS",
    "MEASUREMENTS",
    "SEVERITIES",
    "TARGETS",
    "TARGET_TABLE",
    "TRAINING_HOSPITALS",
    "Device",
    "Hospital",
    "SyntheticBatch",
    "WorldSpec",
    "one_ecg_per_finding",
    "synthesize_ecgs",
    "world_fingerprint",
]
