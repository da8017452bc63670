"""Ten synthetic hospitals: who of which hospital stands in which split, and how a drawn ECG becomes a record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from rich.console import Console

from ecgclip_jax.signal.hospitals import (
    WORLDS,
    HospitalBatch,
    HospitalWorld,
    WorldName,
    hospital_world_fingerprint,
    load_world,
    sample_patients,
    synthesize_hospital,
)
from ecgclip_jax.signal.hospitals.generate import SyntheticRecord
from ecgclip_jax.signal.hospitals.sampling import Sample
from ecgclip_jax.signal.quality import assess
from ecgclip_jax.signal.storage import StoredECG
from ecgclip_jax.spec.signal import STORED_RATE_HZ
from ecgclip_jax.text.hospital_reports import hospital_writer_fingerprint, write_hospital_report
from tfds_builders.common.cohort import BuildError, Cohort, CohortFacts, Plan, Shard, SourceOutcome, rows_per_shard
from tfds_builders.common.records import Clinical, Described, RowKey, audit_reasons, make_record
from tfds_builders.common.stated import stated_codes

Sampling = Literal["case_enriched", "source"]

FACTS = CohortFacts(
    name="synthetic_hospitals",
    version="1.0.0",
    access="open",
    licence="Apache License 2.0",
    homepage="",
    label_vocabulary="synthetic_hospitals",
    package=Path(__file__).parent,
)

INTERNAL_SHARE = 0.55
"""Part of the ECGs that belong to the internal hospital; the external ones share the rest equally."""
_SPLIT_OF_TENTH = (*("train",) * 7, "validation", "test", "test")
"""By the last digit of the patient number, so that a larger cohort keeps every patient in his split."""


@dataclass(frozen=True)
class _Part:
    """Patients of one hospital, in the order of their numbers."""

    hospital: str
    patient_ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class SyntheticHospitals(Cohort):
    """About `size` ECGs of ten hospitals. Equal options give equal bytes; see the README for what is in it."""

    size: int = 20_000
    seed: int | None = None
    """Of the patients; None takes the world's own, which is part of the frozen world."""
    world: WorldName = "default"
    sampling: Sampling = "case_enriched"

    def __post_init__(self) -> None:
        if self.size < 400:
            raise BuildError(f"size: expected at least 400 ECGs, so that every hospital has some, found {self.size}")
        if self.seed is not None and self.seed < 0:
            raise BuildError(f"seed: expected 0 or more, found {self.seed}")
        for name, choices in (("world", WORLDS), ("sampling", get_args(Sampling))):
            if getattr(self, name) not in choices:
                raise BuildError(f"{name}: expected one of {', '.join(choices)}, found {getattr(self, name)!r}")

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`; a null world has a name of its own, so that it is never taken for the real one."""
        return FACTS if self.world == "default" else replace(FACTS, name=f"{FACTS.name}_{self.world}")

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"size": self.size, "seed": self._seed, "world": self.world, "sampling": self.sampling}

    @property
    def _spec(self) -> HospitalWorld:
        return load_world(self.world)

    @property
    def _seed(self) -> int:
        return self._spec.seed if self.seed is None else self.seed

    def plan(self) -> Plan:
        """See `Cohort.plan`. Each external hospital is a split of its own, under its name."""
        shards: list[Shard] = []
        first = 0
        for split, (hospital, sample) in self._splits().items():
            n_shards = -(-int(sample.n_recordings.sum()) // rows_per_shard(self.size))
            for index, rows in enumerate(np.array_split(np.arange(len(sample.patient_id)), max(n_shards, 1))):
                part = _Part(hospital, tuple(sample.patient_id[rows].tolist()), tuple(sample.weight[rows].tolist()))
                n_rows = int(sample.n_recordings[rows].sum())
                shards.append(Shard(split, index, n_rows, (first, part)))
                first += n_rows
        generator = f"{hospital_world_fingerprint(self._spec)} {hospital_writer_fingerprint()} {dict(self.options)}"
        return Plan(tuple(shards), (), first, hashlib.sha256(generator.encode()).hexdigest())

    def _splits(self) -> dict[str, tuple[str, Sample]]:
        """By split: its hospital and patients."""
        splits: dict[str, tuple[str, Sample]] = {}
        external = [h for h in self._spec.hospitals if h.role == "external"]
        for hospital in self._spec.hospitals:
            inside = hospital.role == "internal"
            n_ecgs = round(self.size * (INTERNAL_SHARE if inside else (1 - INTERNAL_SHARE) / len(external)))
            sample = sample_patients(
                self._spec, hospital, n_ecgs, self._seed, enriched=self.sampling == "case_enriched"
            )
            if not inside:
                splits[hospital.name] = (hospital.name, sample)
                continue
            of_tenth = np.array(_SPLIT_OF_TENTH)[sample.patient_id % 10]
            for split in dict.fromkeys(_SPLIT_OF_TENTH):
                splits[split] = (hospital.name, sample.take(np.flatnonzero(of_tenth == split)))
        return splits

    def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
        """See `Cohort.convert`."""
        number, part = shard.payload
        weight = dict(zip(part.patient_ids, part.weights, strict=True))
        world = self._spec
        for batch in synthesize_hospital(world, world.hospital(part.hospital), part.patient_ids, self._seed):
            for record in batch.records:
                own_weight = weight[int(batch.patients.patient_id[record.patient])]
                yield _outcome(world, batch, record, own_weight, number, shard.split)
                number += 1


def _outcome(
    world: HospitalWorld, batch: HospitalBatch, record: SyntheticRecord, weight: float, number: int, split: str
) -> SourceOutcome:
    patients, row, index = batch.patients, record.patient, record.index
    stored = _stored(batch, record)
    key = RowKey(record.record_id, f"{batch.hospital.name}-{int(patients.patient_id[row]):07d}", split)
    style, seed = batch.hospital.report_style, record.report_seed
    described = Described(
        age_years=float(patients.age_years[row, index]),
        sex="female" if patients.female[row] else "male",
        clinical=Clinical(**{name: float(of[row, index]) for name, of in patients.clinical.items()}),
        report=write_hospital_report(record.findings, record.measurements, style, seed),
        labels=stated_codes((*record.findings, *_diagnoses(world, batch, row))),
        measurements=tuple(_measurements(batch, record, weight).items()),
        site=batch.hospital.name,
        device=record.device.name,
        mains_hz=float(batch.hospital.mains_hz),
    )
    made = make_record(stored, key, described, FACTS.label_vocabulary, _source_row(world, batch, record))
    return SourceOutcome(number, key.record_id, split, (made,), audit_reasons(key, described, (stored,)))


def _stored(batch: HospitalBatch, record: SyntheticRecord) -> StoredECG:
    return StoredECG(
        record_id=record.record_id,
        ecg_uv=record.ecg_uv,
        window_index=0,
        n_windows=1,
        lead_present=record.lead_present,
        n_saturated=0,
        rate_hz_source=float(STORED_RATE_HZ),
        resolution_uv=record.device.resolution_uv,
        band_low_hz=None,
        band_high_hz=record.device.low_pass_hz,
        mains_hz=float(batch.hospital.mains_hz),
        quality_flags=tuple(str(flag) for flag in assess(record.ecg_uv)),
    )


def _diagnoses(world: HospitalWorld, batch: HospitalBatch, row: int) -> list[str]:
    """Codes of the patient: rare diseases as far as a stay was coded, and what lies in his past."""
    coded = list(world.rare) if batch.patients.coded_stays[row] > 0 else []
    return [f"diagnosis_{key}" for key in (*coded, *world.past) if batch.patients.conditions[key][row]]


def _measurements(batch: HospitalBatch, record: SyntheticRecord, weight: float) -> dict[str, float]:
    """Numbers with names; what is unknown is left out."""
    gap_days, echo = batch.echo_of(record)
    intervals = {name: float(round(v)) for name, v in record.measurements.items() if not math.isnan(v)}
    known = {
        "sampling_weight": weight,
        "days_since_first_ecg": float(batch.patients.day[record.patient, record.index]),
        "icd_coded_stays": float(batch.patients.coded_stays[record.patient]),
    }
    return known | intervals | ({} if math.isnan(gap_days) else {"echo_gap_days": gap_days} | echo)


def _source_row(world: HospitalWorld, batch: HospitalBatch, record: SyntheticRecord) -> str:
    """What the generator knows and no model may see, for the oracle: hidden severities and the log hazard."""
    hidden = batch.patients.hidden[record.patient, record.index]
    row = {
        "hidden": {name: round(float(v), 4) for name, v in zip(world.severities, hidden, strict=True)},
        "log_hazard": round(float(batch.patients.log_hazard[record.patient]), 4),
        "conditions": [key for key, has in batch.patients.conditions.items() if has[record.patient]],
    }
    return json.dumps(row)


def from_source(
    source: Path | None, downloads: Path, console: Console | None = None, **options: Any
) -> SyntheticHospitals:
    """See `registry.make_cohort`; it is generated."""
    if source is not None:
        raise BuildError("synthetic_hospitals is generated: it takes no --source")
    return SyntheticHospitals(**options)
