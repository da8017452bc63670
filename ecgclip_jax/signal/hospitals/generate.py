"""Patients of one of the ten hospitals in, stored ECGs with everything known about them out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int16

from ecgclip_jax.signal.hospitals.echo import nearest_examination
from ecgclip_jax.signal.hospitals.population import BLOCK, Population, draw_block
from ecgclip_jax.signal.hospitals.world import SHAPES, HospitalSpec, HospitalWorld
from ecgclip_jax.signal.synthesis import FINDINGS, SEVERITIES, TARGETS, WorldSpec
from ecgclip_jax.signal.synthesis.acquisition import draw_defects, record
from ecgclip_jax.signal.synthesis.compatibility import compatible
from ecgclip_jax.signal.synthesis.patients import ECG_STREAM, Constitution, Patient, keyed_generator
from ecgclip_jax.signal.synthesis.recording import make_recording
from ecgclip_jax.signal.synthesis.world import Device, Hospital

_WAVEFORMS = WorldSpec(name="waveforms of ten hospitals")
_CHEST = 3
"""The first three of nine electrodes are on the limbs."""
_AT = {name: SHAPES.index(name) for name in SHAPES}


@dataclass(frozen=True)
class SyntheticRecord:
    """One recording and what is known of it."""

    record_id: str
    patient: int
    """Row in the population that it was made from."""
    index: int
    """Which of the patient's recordings."""
    ecg_uv: Int16[np.ndarray, "5000 12"]
    """Stored microvolts, -32768 where the device stored nothing."""
    lead_present: Bool[np.ndarray, "12"]
    findings: tuple[str, ...]
    """True of the tracing, in the order of `FINDINGS`."""
    measurements: dict[str, float]
    """What a reader would measure; NaN where there is nothing to measure."""
    device: Device
    report_seed: int


@dataclass(frozen=True)
class HospitalBatch:
    """Recordings of some patients, in order of (patient, recording), beside who the patients are."""

    hospital: HospitalSpec
    patients: Population
    records: tuple[SyntheticRecord, ...]

    def echo_of(self, record: SyntheticRecord) -> tuple[float, dict[str, float]]:
        """Echo minus ECG in days (NaN: never examined) of the nearest examination, and what it states by name."""
        visits = self.patients.echo.take(np.array([record.patient]))
        which, gap = nearest_examination(visits, self.patients.day[record.patient, None, record.index, None])
        if math.isnan(gap[0, 0]):
            return math.nan, {}
        visit = int(which[0, 0])
        stated = {k: float(v[0, visit]) for k, v in visits.value.items() if visits.stated[k][0, visit]}
        return float(gap[0, 0]), stated


def synthesize_hospital(
    world: HospitalWorld, hospital: HospitalSpec, patient_ids: Iterable[int], seed: int
) -> Iterator[HospitalBatch]:
    """Recordings of the given patients, one batch per block of 256, in the order of their numbers.

    A recording depends on (world, seed, hospital, patient, index) alone: any chunking and any number of processes give
    the same bytes.
    """
    by_block: dict[int, list[int]] = {}
    for patient_id in sorted(set(patient_ids)):
        by_block.setdefault(patient_id // BLOCK, []).append(patient_id % BLOCK)
    site = hospital.site()
    for block, rows in by_block.items():
        patients = draw_block(world, hospital, block, seed).take(np.array(rows))
        records = tuple(
            _record(hospital, site, patients, row, index, seed)
            for row in range(len(patients))
            for index in range(int(patients.n_recordings[row]))
        )
        yield HospitalBatch(hospital, patients, records)


def _record(
    hospital: HospitalSpec, site: Hospital, patients: Population, row: int, index: int, seed: int
) -> SyntheticRecord:
    patient_id = int(patients.patient_id[row])
    rng = keyed_generator(seed, site, patient_id, ECG_STREAM + index)
    patient = _patient(patients, row, index, rng)
    drawn = compatible(FINDINGS[k] for k in np.flatnonzero(patients.candidates[row, index]))
    recording = make_recording(_WAVEFORMS, patient, drawn, rng)
    device = hospital.devices[int(patients.device[row, index])]
    defects = draw_defects(site, "arm_lead_reversal" in recording.findings, rng)
    electrodes_mv = recording.electrodes_mv
    chance, first = rng.random(), _CHEST + int(rng.integers(5))
    if chance < hospital.chest_swap_probability:
        electrodes_mv[[first, first + 1]] = electrodes_mv[[first + 1, first]]
    ecg_uv = record(electrodes_mv, site, device, defects, patient.constitution.breaths_hz, rng)
    return SyntheticRecord(
        record_id=f"{hospital.name}-{patient_id:07d}-{index}",
        patient=row,
        index=index,
        ecg_uv=ecg_uv,
        lead_present=ecg_uv[0] != -32768,
        findings=tuple(f for f in FINDINGS if f in recording.findings),
        measurements=recording.measurements,
        device=device,
        report_seed=int(rng.integers(2**62)),
    )


def _patient(patients: Population, row: int, index: int, rng: np.random.Generator) -> Patient:
    """The patient on the day of the recording, as the generator of waveforms knows patients."""
    return Patient(
        patient_id=int(patients.patient_id[row]),
        sex="female" if patients.female[row] else "male",
        age_years=float(patients.age_years[row, index]),
        severity=patients.severity[row, index, : len(SEVERITIES)],
        hidden=patients.hidden[row, index, : len(SEVERITIES)],
        finding_noise=np.zeros(len(FINDINGS)),
        healthy=False,
        constitution=_constitution(patients.shape[row, index], rng),
        targets=np.zeros(len(TARGETS), bool),
        oracle=np.zeros(len(TARGETS)),
        ecg_count=int(patients.n_recordings[row]),
    )


def _constitution(shape: Float[np.ndarray, " shapes"], rng: np.random.Generator) -> Constitution:
    own = {name: float(shape[at]) for name, at in _AT.items()}
    return Constitution(
        qrs_size=math.exp(own["qrs_log_size"]),
        t_size=math.exp(own["t_log_size"]),
        axis_deg=own["axis_deg"],
        horizontal_deg=own["horizontal_deg"],
        precordial_gain=np.exp(shape[_AT["v1_log_gain"] : _AT["v6_log_gain"] + 1]),
        p_size=math.exp(own["p_log_size"]),
        pr_ms=own["pr_ms"],
        qrs_ms=own["qrs_ms"],
        qtc_ms=own["qtc_ms"],
        heart_rate_bpm=own["heart_rate_bpm"],
        breaths_hz=float(rng.uniform(0.18, 0.33)),
    )
