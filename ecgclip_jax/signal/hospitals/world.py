"""The parameters of the ten hospitals as typed, checked values; `world.toml` holds them, nothing else does."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, get_args

from pydantic import Field, model_validator

from ecgclip_jax.signal.synthesis import SEVERITIES
from ecgclip_jax.signal.synthesis.findings import FINDING_TABLE, Group
from ecgclip_jax.signal.synthesis.world import Device, Hospital
from ecgclip_jax.spec.base import Spec

ReportStyle = Literal["clinical", "machine", "narrative", "telegram", "german", "german_short"]
WorldName = Literal["default", "unseen_targets", "device_linked"]
Loadings = dict[str, float]
SHAPES = (
    "qrs_log_size",
    "t_log_size",
    "axis_deg",
    "horizontal_deg",
    *(f"v{i}_log_gain" for i in range(1, 7)),
    "p_log_size",
    "pr_ms",
    "qrs_ms",
    "qtc_ms",
    "heart_rate_bpm",
)
"""What severities bend below the threshold of any finding."""


class FindingSpec(Spec):
    """An ECG finding as a liability; see `world.toml`."""

    group: Group
    probability: float = Field(gt=0, lt=1)
    persistence: float = Field(ge=0, le=1)
    loadings: Loadings


class ShapeSpec(Spec):
    """A quantity of the normal ECG: normal variation and the effect of severities, within limits."""

    mean: float
    female: float
    sd: float = Field(gt=0)
    low: float
    high: float
    effects: Loadings


class EchoSpec(Spec):
    """A measurement in echocardiography; see `world.toml` for the scales."""

    scale: Literal["linear", "log", "steps"]
    family: str
    loadings: Loadings
    missing: float = Field(ge=0, lt=1)
    mean: float = 0.0
    female: float = 0.0
    """Added to the mean in women."""
    sd: float = 1.0
    low: float = 0.0
    high: float = 1000.0
    decimals: int = 0
    first: int = 0
    steps: tuple[float, ...] = ()


class EchoVisit(Spec):
    """Who is echoed and when."""

    log_odds: float
    loadings: Loadings
    second_share: float = Field(ge=0, le=1)
    before_share: float = Field(ge=0, le=1)
    gap_days_mean: float = Field(gt=0)
    family_noise: float = Field(ge=0, lt=1)


class ConditionSpec(Spec):
    """A property of a patient as a liability with an exact prevalence."""

    prevalence: float = Field(gt=0, lt=1)
    loadings: Loadings


class Visits(Spec):
    """How often and how far apart patients are recorded, and how fast they get worse."""

    recordings_share: tuple[float, ...] = Field(min_length=1)
    gap_days_mean: float = Field(gt=0)
    pace_log_sd: float = Field(ge=0)


class SurvivalSpec(Spec):
    """Hazard of the event that follow-up waits for."""

    events_per_year: float = Field(gt=0)
    closes_years: tuple[float, float]
    male: float
    smoker: float
    diabetes: float
    loadings: Loadings


class Enrichment(Spec):
    """How a case-enriched sample is drawn."""

    least: float = Field(gt=0, le=1)
    wanted_share: float = Field(gt=0, lt=1)


class Stays(Spec):
    """Hospital stays whose diagnoses were coded: Poisson with a log-linear mean."""

    mean: float = Field(gt=0)
    loadings: Loadings


class HospitalDevice(Device):
    """An electrocardiograph; `acuity` is the log-odds of its use per SD of systolic dysfunction."""

    acuity: float = 0.0


class HospitalSpec(Spec):
    """A hospital: devices, disturbances, patients, echo practice and language."""

    name: str
    role: Literal["internal", "external"]
    report_style: ReportStyle
    devices: tuple[HospitalDevice, ...] = Field(min_length=1)
    mains_hz: Literal[50, 60]
    mains_uv: float = Field(ge=0)
    wander_uv: float = Field(ge=0)
    motion_probability: float = Field(ge=0, le=1)
    flat_lead_probability: float = Field(ge=0, le=1)
    missing_lead_probability: float = Field(ge=0, le=1)
    chest_swap_probability: float = Field(ge=0, le=1)
    """Chance that two neighbouring chest cables are exchanged."""
    healthy_share: float = Field(ge=0, le=1)
    age_mean_years: float = Field(gt=0)
    clinical_missing: float = Field(ge=0, lt=1)
    echo_log_odds: float = 0.0
    shift: Loadings = Field(default_factory=dict)
    """Mean of severities where it is not that of the other hospitals, in SD."""
    prevalence: dict[Group, float] = Field(default_factory=dict)
    """Factor on the probability of each finding of a group."""

    def site(self) -> Hospital:
        """The hospital as the generator of waveforms knows it."""
        return Hospital(
            name=self.name,
            devices=self.devices,
            mains_hz=self.mains_hz,
            mains_uv=self.mains_uv,
            wander_uv=self.wander_uv,
            motion_probability=self.motion_probability,
            flat_lead_probability=self.flat_lead_probability,
            missing_lead_probability=self.missing_lead_probability,
            healthy_share=self.healthy_share,
            age_mean_years=self.age_mean_years,
            report_style="clinical",  # not read: reports are written by `report_style` above
            training=self.role == "internal",
        )


class HospitalWorld(Spec):
    """The whole world; the two switches at the end make null worlds."""

    name: str
    seed: int
    severities: dict[str, float]
    """Change of each severity in a year, in SD."""
    visits: Visits
    findings: dict[str, FindingSpec]
    shape: dict[str, ShapeSpec]
    echo: dict[str, EchoSpec]
    echo_visit: EchoVisit
    rare: dict[str, ConditionSpec]
    past: dict[str, ConditionSpec]
    risk: dict[str, ConditionSpec]
    survival: SurvivalSpec
    enrichment: Enrichment
    stays: Stays
    hospitals: tuple[HospitalSpec, ...]
    targets_affect_waveform: bool = True
    """False: echo, rare diseases, risk and events come from severities that no waveform and no finding knows."""
    device_linked: bool = False
    """True: an ejection fraction up to 45 % goes with the first device inside, with the last one outside."""

    @model_validator(mode="after")
    def _consistent(self) -> HospitalWorld:
        known = set(self.severities)
        if tuple(self.severities)[: len(SEVERITIES)] != SEVERITIES:
            raise ValueError(f"severities: expected to begin with {SEVERITIES}, found {tuple(self.severities)}")
        liabilities = {key: of.loadings for key, of in self.findings.items()}
        liabilities |= {key: of.loadings for key, of in self.echo.items()}
        liabilities |= {key: of.loadings for part in (self.rare, self.past, self.risk) for key, of in part.items()}
        for key, loadings in liabilities.items():
            if not set(loadings) <= known or sum(v * v for v in loadings.values()) >= 1:
                raise ValueError(f"{key}: loadings must name severities, and their squares sum to less than 1")
        drawn = {f.key for f in FINDING_TABLE if f.persistence is not None}
        if set(self.findings) != drawn or tuple(self.shape) != SHAPES:
            raise ValueError("findings and shape: expected exactly those that the generator of waveforms knows")
        for hospital in self.hospitals:
            if not set(hospital.shift) <= known:
                raise ValueError(f"hospital {hospital.name}: shift names unknown severities")
        if len({h.name for h in self.hospitals}) != len(self.hospitals):
            raise ValueError("hospitals: each name once")
        return self

    def hospital(self, name: str) -> HospitalSpec:
        """The hospital of that name.

        Raises:
            KeyError: no such hospital.
        """
        for hospital in self.hospitals:
            if hospital.name == name:
                return hospital
        raise KeyError(f"no hospital {name!r} in this world; it has {[h.name for h in self.hospitals]}")


@cache
def load_world(name: WorldName = "default") -> HospitalWorld:
    """The world of `world.toml`, or one of its null worlds."""
    text = (resources.files("ecgclip_jax.signal.hospitals") / "world.toml").read_text("utf-8")
    world = HospitalWorld.model_validate(tomllib.loads(text))
    return world if name == "default" else world.model_copy(update=dict(_SWITCHES[name]))


WORLDS: tuple[WorldName, ...] = get_args(WorldName)
_SWITCHES: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {"unseen_targets": {"targets_affect_waveform": False}, "device_linked": {"device_linked": True}}
)
"""The null world of shuffled reports is a switch of the training data (`data.null_world`), not of the patients."""


def hospital_world_fingerprint(world: HospitalWorld) -> str:
    """SHA-256 (16 hex digits) of the parameters, in order, and of the generators' source, waveforms' included."""
    digest = hashlib.sha256(world.model_dump_json().encode())
    for package in ("ecgclip_jax.signal.synthesis", "ecgclip_jax.signal.hospitals"):
        for module in sorted(resources.files(package).iterdir(), key=lambda item: item.name):
            if module.name.endswith(".py"):
                digest.update(module.read_bytes())
    return digest.hexdigest()[:16]
