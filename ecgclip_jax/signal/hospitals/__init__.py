"""The complete synthetic world: ten hospitals, patients followed over years, echo, rare diseases, risk factors.

Its waveforms are drawn as those of `ecgclip_jax.signal.synthesis`; what is new is who the patients are and what is
known of them. `world.toml` holds every parameter. Numbers from this world are always labelled synthetic.
"""

from ecgclip_jax.signal.hospitals.generate import HospitalBatch, synthesize_hospital
from ecgclip_jax.signal.hospitals.sampling import Sample, sample_patients
from ecgclip_jax.signal.hospitals.world import (
    WORLDS,
    HospitalSpec,
    HospitalWorld,
    WorldName,
    hospital_world_fingerprint,
    load_world,
)

__all__ = [
    "WORLDS",
    "HospitalBatch",
    "HospitalSpec",
    "HospitalWorld",
    "Sample",
    "WorldName",
    "hospital_world_fingerprint",
    "load_world",
    "sample_patients",
    "synthesize_hospital",
]
