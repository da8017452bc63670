"""The frozen description of the synthetic world: its hospitals, their devices, and the null worlds one switch away.

A claim is tested on a world whose fingerprint was written down before; see `world_fingerprint`.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Literal

from pydantic import Field, model_validator

from ecgclip_jax.signal.synthesis.findings import FINDING_TABLE, Group
from ecgclip_jax.spec.base import Spec

ReportStyle = Literal["clinical", "machine", "narrative"]


class Device(Spec):
    """An electrocardiograph: what it adds to the potentials and how finely it writes them down."""

    name: str
    noise_uv: float = Field(ge=0)
    """Standard deviation of the muscle and amplifier noise per electrode (median of a log-normal over recordings)."""
    low_pass_hz: float = Field(gt=10, le=250)
    resolution_uv: float = Field(gt=0)
    gain_error: float = Field(0.0, ge=0, lt=0.5)
    """Standard deviation of the relative gain error of a recording."""


class Hospital(Spec):
    """A hospital: its devices, disturbances, case mix and the way its readers write."""

    name: str
    devices: tuple[Device, ...] = Field(min_length=1)
    mains_hz: Literal[50, 60]
    mains_uv: float = Field(ge=0)
    wander_uv: float = Field(ge=0)
    motion_probability: float = Field(ge=0, le=1)
    """Chance that a recording holds an electrode-motion artefact."""
    flat_lead_probability: float = Field(ge=0, le=1)
    missing_lead_probability: float = Field(ge=0, le=1)
    prevalence: dict[Group, float] = Field(default_factory=dict)
    """Factor on the probability of each finding of a group; 1 where not named."""
    healthy_share: float = Field(ge=0, le=1)
    """Patients without any drawn finding."""
    age_mean_years: float = Field(gt=0)
    report_style: ReportStyle
    training: bool
    """False: an external hospital, never trained on."""
    clinical_missing: float = Field(0.1, ge=0, lt=1)
    """Chance that a risk factor of a typical patient, or his follow-up, is not in the records."""
    device_link: float = Field(0.0, ge=-1, le=1)
    """Only with `WorldSpec.device_linked_target`: +1 ties positives to the first device, -1 to the last."""


HOSPITAL_A = Hospital(
    name="A",
    devices=(
        Device(name="Aster 1", noise_uv=9.0, low_pass_hz=150, resolution_uv=5.0, gain_error=0.02),
        Device(name="Aster 2", noise_uv=6.0, low_pass_hz=150, resolution_uv=2.5, gain_error=0.01),
    ),
    mains_hz=60,
    mains_uv=12.0,
    wander_uv=210.0,
    motion_probability=0.4,
    flat_lead_probability=0.01,
    missing_lead_probability=0.01,
    healthy_share=0.08,
    age_mean_years=60.0,
    report_style="clinical",
    training=True,
    clinical_missing=0.05,
    device_link=1.0,
)
HOSPITAL_B = Hospital(
    name="B",
    devices=(
        Device(name="Boreal", noise_uv=12.0, low_pass_hz=100, resolution_uv=1.0, gain_error=0.03),
        Device(name="Boreal mobile", noise_uv=18.0, low_pass_hz=100, resolution_uv=5.0, gain_error=0.05),
    ),
    mains_hz=50,
    mains_uv=20.0,
    wander_uv=250.0,
    motion_probability=0.5,
    flat_lead_probability=0.015,
    missing_lead_probability=0.01,
    prevalence={"rhythm": 1.1, "infarction": 0.8, "hypertrophy": 1.2},
    healthy_share=0.10,
    age_mean_years=54.0,
    report_style="machine",
    training=True,
    clinical_missing=0.2,
    device_link=1.0,
)
HOSPITAL_C = Hospital(
    name="C",
    devices=(
        Device(name="Cirrus", noise_uv=14.0, low_pass_hz=120, resolution_uv=4.88, gain_error=0.03),
        Device(name="Cirrus bedside", noise_uv=20.0, low_pass_hz=75, resolution_uv=2.44, gain_error=0.05),
    ),
    mains_hz=50,
    mains_uv=25.0,
    wander_uv=280.0,
    motion_probability=0.5,
    flat_lead_probability=0.02,
    missing_lead_probability=0.02,
    prevalence={"rhythm": 0.95, "infarction": 1.15, "conduction": 1.1, "repolarisation": 0.95},
    healthy_share=0.07,
    age_mean_years=65.0,
    report_style="narrative",
    training=False,
    clinical_missing=0.1,
    device_link=-1.0,
)
HOSPITALS: tuple[Hospital, ...] = (HOSPITAL_A, HOSPITAL_B, HOSPITAL_C)
TRAINING_HOSPITALS = tuple(h for h in HOSPITALS if h.training)
EXTERNAL_HOSPITALS = tuple(h for h in HOSPITALS if not h.training)


class WorldSpec(Spec):
    """The synthetic world. Defaults are the demo's world; the three last switches make null worlds."""

    name: str = "synthetic-2"
    hospitals: tuple[Hospital, ...] = HOSPITALS
    ecgs_per_patient_max: int = Field(3, ge=1, le=20)
    severity_effect: float = Field(1.0, ge=0)
    """How strongly the hidden severities bend the waveform beyond the findings themselves; 0 leaves the findings."""
    targets_affect_waveform: bool = True
    """False: targets come from severities that neither waveform nor findings know; no model can predict them."""
    reports_of_other_patients: bool = False
    """True: each report is written of a stranger's recording of the same hospital."""
    device_linked_target: str | None = None
    """A target whose positives are recorded on one device, by each hospital's `device_link`."""

    @model_validator(mode="after")
    def _consistent(self) -> WorldSpec:
        names = [h.name for h in self.hospitals]
        if len(set(names)) != len(names):
            raise ValueError(f"hospitals: each name once, got {names}")
        groups = {f.group for f in FINDING_TABLE}
        for hospital in self.hospitals:
            if unknown := set(hospital.prevalence) - groups:
                raise ValueError(f"hospital {hospital.name}: no findings of group {sorted(unknown)}")
        return self

    def hospital(self, name: str) -> Hospital:
        """The hospital of that name.

        Raises:
            KeyError: no such hospital.
        """
        for hospital in self.hospitals:
            if hospital.name == name:
                return hospital
        raise KeyError(f"no hospital {name!r} in this world; it has {[h.name for h in self.hospitals]}")


DEFAULT_WORLD = WorldSpec()


def world_fingerprint(world: WorldSpec = DEFAULT_WORLD) -> str:
    """SHA-256 (16 hex digits) of the world's parameters and of the generator's source, morphology tables included."""
    digest = hashlib.sha256(world.canonical_json().encode())
    package = resources.files("ecgclip_jax.signal.synthesis")
    for module in sorted(package.iterdir(), key=lambda item: item.name):
        if module.name.endswith(".py"):
            digest.update(module.read_bytes())
    return digest.hexdigest()[:16]
