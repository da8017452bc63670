"""The synthetic world's front door: patients of a hospital in, stored ECGs with everything known about them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from ecgclip_jax.signal.synthesis.acquisition import draw_defects, record
from ecgclip_jax.signal.synthesis.clinical import CLINICAL, ClinicalFacts, draw_clinical
from ecgclip_jax.signal.synthesis.findings import FINDINGS, SEVERITIES, TARGET_TABLE, TARGETS
from ecgclip_jax.signal.synthesis.patients import (
    ECG_STREAM,
    STRANGER_STREAM,
    TYPICAL_CONSTITUTION,
    Patient,
    draw_findings,
    draw_patient,
    keyed_generator,
)
from ecgclip_jax.signal.synthesis.recording import MEASUREMENTS, Recording, make_recording
from ecgclip_jax.signal.synthesis.world import Device, Hospital, WorldSpec


@dataclass(frozen=True)
class SyntheticBatch:
    """ECGs of consecutive patients of one hospital, N recordings in order of (patient, recording)."""

    hospital: str
    record_id: tuple[str, ...]
    ecg_uv: Int16[np.ndarray, "n 5000 12"]
    """Stored microvolts, -32768 where the device stored nothing."""
    patient_id: Int64[np.ndarray, " n"]
    age_years: Float32[np.ndarray, " n"]
    sex: tuple[str, ...]
    findings: Bool[np.ndarray, "n findings"]
    """Truth, columns in the order of `FINDINGS`."""
    measurements: dict[str, Float32[np.ndarray, " n"]]
    """`MEASUREMENTS` of the tracing; NaN where there is nothing to measure."""
    reported_findings: Bool[np.ndarray, "n findings"]
    """What the reader of the report had before him: the truth, except in the null world of strangers' reports."""
    reported_measurements: dict[str, Float32[np.ndarray, " n"]]
    report_seed: Int64[np.ndarray, " n"]
    """Seed of the report's wording, a function of (seed, hospital, patient, recording)."""
    device: tuple[str, ...]
    mains_hz: Float32[np.ndarray, " n"]
    resolution_uv: Float32[np.ndarray, " n"]
    low_pass_hz: Float32[np.ndarray, " n"]
    lead_present: Bool[np.ndarray, "n 12"]
    targets: dict[str, Bool[np.ndarray, " n"]]
    """Echo, rare-disease and risk labels by `TARGETS`; they never stand in a report."""
    clinical: dict[str, Float32[np.ndarray, " n"]]
    """Risk factors and follow-up by `CLINICAL`, NaN where not recorded; they never stand in a report."""
    latent: dict[str, Float32[np.ndarray, " n"]]
    """Hidden severities by name, and `oracle_<target>`: the best score that knowing all of them allows.

    `oracle_event` is the log hazard of the event that `follow_up_years` waits for."""

    def __len__(self) -> int:
        return len(self.record_id)


@dataclass(frozen=True)
class _Row:
    patient: Patient
    index: int
    recording: Recording
    ecg_uv: Int16[np.ndarray, "5000 12"]
    reported: Recording
    report_seed: int
    device: Device
    clinical: ClinicalFacts


def synthesize_ecgs(world: WorldSpec, hospital: Hospital, patient_ids: Iterable[int], seed: int = 0) -> SyntheticBatch:
    """All recordings of the given patients of `hospital`.

    A patient's recordings depend on (world, seed, hospital, patient id) alone: any chunking and any number of
    processes give the same bytes. Memory grows with the number of patients asked for, 120 kB an ECG.
    """
    rows = [row for patient_id in patient_ids for row in _rows(world, hospital, patient_id, seed)]
    if not rows:
        raise ValueError("patient_ids: expected at least one patient, found none")
    return _collect(hospital, rows)


def one_ecg_per_finding(seed: int = 0) -> SyntheticBatch:
    """The clearest ECG of every finding: that finding alone, in a typical adult, on a quiet device.

    Row i shows `FINDINGS[i]`, beside what follows from it (an axis, sinus rhythm).
    """
    world, quiet = WorldSpec(name="contact sheet", severity_effect=0.0), _QUIET_HOSPITAL
    rows = []
    for number, finding in enumerate(FINDINGS):
        patient = replace(draw_patient(world, quiet, number, seed), constitution=TYPICAL_CONSTITUTION)
        clinical = draw_clinical(world, quiet, patient, seed)
        rng = keyed_generator(seed, quiet, number, ECG_STREAM)
        drawn = frozenset({finding} - {"normal_ecg", "sinus_rhythm"})
        rows.append(_row(world, quiet, patient, clinical, 0, drawn, rng))
    return _collect(quiet, rows)


_QUIET_HOSPITAL = Hospital(
    name="quiet room",
    devices=(Device(name="quiet device", noise_uv=3.0, low_pass_hz=150, resolution_uv=1.0),),
    mains_hz=50,
    mains_uv=1.0,
    wander_uv=8.0,
    motion_probability=0.0,
    flat_lead_probability=0.0,
    missing_lead_probability=0.0,
    healthy_share=0.0,
    age_mean_years=60.0,
    report_style="clinical",
    training=False,
)


def _rows(world: WorldSpec, hospital: Hospital, patient_id: int, seed: int) -> Iterator[_Row]:
    patient = draw_patient(world, hospital, patient_id, seed)
    clinical = draw_clinical(world, hospital, patient, seed)
    for index in range(patient.ecg_count):
        rng = keyed_generator(seed, hospital, patient_id, ECG_STREAM + index)
        row = _row(world, hospital, patient, clinical, index, draw_findings(patient, hospital, rng), rng)
        if world.reports_of_other_patients:
            row = replace(row, reported=_stranger(world, hospital, patient_id, index, seed))
        yield row


def _row(
    world: WorldSpec,
    hospital: Hospital,
    patient: Patient,
    clinical: ClinicalFacts,
    index: int,
    drawn: frozenset[str],
    rng: np.random.Generator,
) -> _Row:
    recording = make_recording(world, patient, drawn, rng)
    device = _device(world, hospital, patient, rng)
    defects = draw_defects(hospital, "arm_lead_reversal" in recording.findings, rng)
    ecg_uv = record(recording.electrodes_mv, hospital, device, defects, patient.constitution.breaths_hz, rng)
    return _Row(patient, index, recording, ecg_uv, recording, int(rng.integers(2**62)), device, clinical)


def _stranger(world: WorldSpec, hospital: Hospital, patient_id: int, index: int, seed: int) -> Recording:
    """Another patient's recording, unrendered, as good as one drawn by shuffling and still chunk-independent."""
    rng = keyed_generator(seed, hospital, patient_id, STRANGER_STREAM + index)
    patient = draw_patient(world, hospital, int(rng.integers(2**40, 2**41)), seed)
    return make_recording(world, patient, draw_findings(patient, hospital, rng), rng, render=False)


def _device(world: WorldSpec, hospital: Hospital, patient: Patient, rng: np.random.Generator) -> Device:
    """Any device, or, in the null world of tied devices, mostly the one that goes with the target."""
    chance, which = rng.random(), int(rng.integers(len(hospital.devices)))
    if world.device_linked_target is None or chance > abs(hospital.device_link):
        return hospital.devices[which]
    positive = bool(patient.targets[TARGETS.index(world.device_linked_target)])
    return hospital.devices[0 if positive == (hospital.device_link > 0) else -1]


def _flags(recordings: list[Recording]) -> Bool[np.ndarray, "n findings"]:
    return np.array([[key in r.findings for key in FINDINGS] for r in recordings])


def _measured(recordings: list[Recording]) -> dict[str, np.ndarray]:
    return {name: np.array([r.measurements[name] for r in recordings], np.float32) for name in MEASUREMENTS}


def _collect(hospital: Hospital, rows: list[_Row]) -> SyntheticBatch:
    ecg_uv = np.stack([r.ecg_uv for r in rows])
    severity = np.array([r.patient.severity for r in rows], np.float32)
    oracle = np.array([r.patient.oracle for r in rows], np.float32)
    targets = np.array([r.patient.targets for r in rows])
    latent = {name: severity[:, i] for i, name in enumerate(SEVERITIES)}
    latent |= {f"oracle_{t.key}": oracle[:, i] for i, t in enumerate(TARGET_TABLE)}
    latent["oracle_event"] = np.array([r.clinical.log_hazard for r in rows], np.float32)
    truth, reported = [r.recording for r in rows], [r.reported for r in rows]
    return SyntheticBatch(
        hospital=hospital.name,
        record_id=tuple(f"{hospital.name}-{r.patient.patient_id:07d}-{r.index}" for r in rows),
        ecg_uv=ecg_uv,
        patient_id=np.array([r.patient.patient_id for r in rows], np.int64),
        age_years=np.array([r.patient.age_years for r in rows], np.float32),
        sex=tuple(r.patient.sex for r in rows),
        findings=_flags(truth),
        measurements=_measured(truth),
        reported_findings=_flags(reported),
        reported_measurements=_measured(reported),
        report_seed=np.array([r.report_seed for r in rows], np.int64),
        device=tuple(r.device.name for r in rows),
        mains_hz=np.full(len(rows), hospital.mains_hz, np.float32),
        resolution_uv=np.array([r.device.resolution_uv for r in rows], np.float32),
        low_pass_hz=np.array([r.device.low_pass_hz for r in rows], np.float32),
        lead_present=ecg_uv[:, 0, :] != -32768,
        targets={t.key: targets[:, i] for i, t in enumerate(TARGET_TABLE)},
        clinical={name: np.array([r.clinical.recorded[name] for r in rows], np.float32) for name in CLINICAL},
        latent=latent,
    )
