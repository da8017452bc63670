"""The synthetic cohort: which patients of which hospital stand in which split, and how a drawn ECG becomes a record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from rich.console import Console

from ecgclip_jax.signal.quality import assess
from ecgclip_jax.signal.storage import StoredECG
from ecgclip_jax.signal.synthesis import (
    DEFAULT_WORLD,
    EXTERNAL_HOSPITALS,
    FINDINGS,
    TRAINING_HOSPITALS,
    Hospital,
    SyntheticBatch,
    WorldSpec,
    synthesize_ecgs,
    world_fingerprint,
)
from ecgclip_jax.signal.synthesis.patients import draw_patient
from ecgclip_jax.spec.signal import STORED_RATE_HZ
from ecgclip_jax.text.report_writer import write_report, writer_fingerprint
from tfds_builders.common.cohort import BuildError, Cohort, CohortFacts, Plan, Shard, SourceOutcome, rows_per_shard
from tfds_builders.common.records import Clinical, Described, RowKey, audit_reasons, make_record
from tfds_builders.common.stated import stated_codes

WorldName = Literal["default", "strangers_reports", "unseen_targets", "device_linked"]
WORLDS: Mapping[WorldName, WorldSpec] = MappingProxyType(
    {
        "default": DEFAULT_WORLD,
        "strangers_reports": DEFAULT_WORLD.model_copy(update={"reports_of_other_patients": True}),
        "unseen_targets": DEFAULT_WORLD.model_copy(update={"targets_affect_waveform": False}),
        "device_linked": DEFAULT_WORLD.model_copy(update={"device_linked_target": "lvef_40_or_less"}),
    }
)
"""The demo's world and its null worlds, in which claims must fail as predicted."""

FACTS = CohortFacts(
    name="synthetic_ecg",
    version="1.2.0",
    access="open",
    licence="Apache License 2.0",
    homepage="",
    label_vocabulary="synthetic",
    package=Path(__file__).parent,
)

EXTERNAL_SHARE = 0.2
"""Part of the patients who belong to hospitals that are never trained on."""
_SPLIT_OF_TENTH = (*("train",) * 8, "validation", "test")
"""By the last digit of the patient number: a larger cohort keeps every patient in his split."""
_SPLITS = ("train", "validation", "test", "external")
_PATIENTS_AT_ONCE = 16


@dataclass(frozen=True)
class _Part:
    """Some patients of one hospital."""

    hospital: str
    patient_ids: tuple[int, ...]


@dataclass(frozen=True)
class SyntheticEcg(Cohort):
    """A synthetic cohort of about `size` ECGs. Equal options give equal bytes; see the README for what is in it."""

    size: int = 8000
    seed: int = 0
    world: WorldName = "default"

    def __post_init__(self) -> None:
        if self.size < 100:
            raise BuildError(f"size: expected at least 100 ECGs, so that every split has patients, found {self.size}")
        if self.seed < 0:
            raise BuildError(f"seed: expected 0 or more, found {self.seed}")
        if self.world not in WORLDS:
            raise BuildError(f"world: expected one of {', '.join(WORLDS)}, found {self.world!r}")

    @property
    def facts(self) -> CohortFacts:
        """See `Cohort.facts`; a null world has a name of its own, so that it is never taken for the real one."""
        return FACTS if self.world == "default" else replace(FACTS, name=f"{FACTS.name}_{self.world}")

    @property
    def options(self) -> Mapping[str, Any]:
        """See `Cohort.options`."""
        return {"size": self.size, "seed": self.seed, "world": self.world}

    @property
    def _spec(self) -> WorldSpec:
        return WORLDS[self.world]

    def plan(self) -> Plan:
        """See `Cohort.plan`. Every shard holds patients of every hospital of its split."""
        shards: list[Shard] = []
        first = 0
        for split, parts in self._patients().items():
            patients = sum(len(part.patient_ids) for part in parts)
            mean_ecgs = (1 + self._spec.ecgs_per_patient_max) / 2
            n_shards = math.ceil(patients * mean_ecgs / rows_per_shard(round(patients * mean_ecgs)))
            for index in range(n_shards):
                chosen = tuple(_Part(part.hospital, part.patient_ids[index::n_shards]) for part in parts)
                rows = sum(self._ecg_count(part.hospital, patient) for part in chosen for patient in part.patient_ids)
                shards.append(Shard(split, index, rows, (first, chosen)))
                first += rows
        generator = f"{world_fingerprint(self._spec)} {writer_fingerprint()} {dict(self.options)}"
        return Plan(tuple(shards), (), first, hashlib.sha256(generator.encode()).hexdigest())

    def _patients(self) -> dict[str, list[_Part]]:
        """By split: the patients of each hospital."""
        patients = self.size / ((1 + self._spec.ecgs_per_patient_max) / 2)
        per_training = round(patients * (1 - EXTERNAL_SHARE) / len(TRAINING_HOSPITALS))
        per_external = round(patients * EXTERNAL_SHARE / len(EXTERNAL_HOSPITALS))
        split: dict[str, list[_Part]] = {name: [] for name in _SPLITS}
        for hospital in TRAINING_HOSPITALS:
            for name in ("train", "validation", "test"):
                chosen = tuple(i for i in range(per_training) if _SPLIT_OF_TENTH[i % 10] == name)
                split[name].append(_Part(hospital.name, chosen))
        split["external"] = [_Part(hospital.name, tuple(range(per_external))) for hospital in EXTERNAL_HOSPITALS]
        return split

    def _ecg_count(self, hospital: str, patient_id: int) -> int:
        return draw_patient(self._spec, self._spec.hospital(hospital), patient_id, self.seed).ecg_count

    def convert(self, shard: Shard) -> Iterator[SourceOutcome]:
        """See `Cohort.convert`."""
        number, parts = shard.payload
        for part in parts:
            hospital = self._spec.hospital(part.hospital)
            for start in range(0, len(part.patient_ids), _PATIENTS_AT_ONCE):
                chunk = part.patient_ids[start : start + _PATIENTS_AT_ONCE]
                batch = synthesize_ecgs(self._spec, hospital, chunk, self.seed)
                for i in range(len(batch)):
                    yield _outcome(batch, i, hospital, number, shard.split)
                    number += 1


def _outcome(batch: SyntheticBatch, i: int, hospital: Hospital, number: int, split: str) -> SourceOutcome:
    stored = _stored(batch, i)
    key = RowKey(batch.record_id[i], f"{hospital.name}-{batch.patient_id[i]:07d}", split)
    described = Described(
        age_years=float(batch.age_years[i]),
        sex="female" if batch.sex[i] == "female" else "male",
        clinical=Clinical(**{name: float(values[i]) for name, values in batch.clinical.items()}),
        report=_report(batch, i, hospital),
        measurements=tuple((name, float(v[i])) for name, v in batch.measurements.items() if not math.isnan(v[i])),
        labels=stated_codes((*_found(batch.findings[i]), *_true_targets(batch, i))),
        site=hospital.name,
        device=batch.device[i],
        mains_hz=float(batch.mains_hz[i]),
    )
    record = make_record(stored, key, described, FACTS.label_vocabulary, _source_row(batch, i))
    return SourceOutcome(number, key.record_id, split, (record,), audit_reasons(key, described, (stored,)))


def _stored(batch: SyntheticBatch, i: int) -> StoredECG:
    return StoredECG(
        record_id=batch.record_id[i],
        ecg_uv=batch.ecg_uv[i],
        window_index=0,
        n_windows=1,
        lead_present=batch.lead_present[i],
        n_saturated=0,
        rate_hz_source=float(STORED_RATE_HZ),
        resolution_uv=float(batch.resolution_uv[i]),
        band_low_hz=None,
        band_high_hz=float(batch.low_pass_hz[i]),
        mains_hz=float(batch.mains_hz[i]),
        quality_flags=tuple(str(flag) for flag in assess(batch.ecg_uv[i])),
    )


def _report(batch: SyntheticBatch, i: int, hospital: Hospital) -> str:
    measurements = {name: float(values[i]) for name, values in batch.reported_measurements.items()}
    findings = _found(batch.reported_findings[i])
    return write_report(findings, measurements, hospital.report_style, int(batch.report_seed[i]))


def _found(flags: np.ndarray) -> list[str]:
    return [FINDINGS[k] for k in np.flatnonzero(flags)]


def _true_targets(batch: SyntheticBatch, i: int) -> list[str]:
    return [name for name, values in batch.targets.items() if values[i]]


def _source_row(batch: SyntheticBatch, i: int) -> str:
    """What the generator knows of the recording and no model may see: the test bed's truth."""
    row = {
        "targets": {name: bool(values[i]) for name, values in batch.targets.items()},
        "measurements": {name: _rounded(values[i]) for name, values in batch.measurements.items()},
        "latent": {name: _rounded(values[i]) for name, values in batch.latent.items()},
        "reported_findings": _found(batch.reported_findings[i]),
    }
    return json.dumps(row)


def _rounded(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def from_source(source: Path | None, downloads: Path, console: Console | None = None, **options: Any) -> SyntheticEcg:
    """See `registry.make_cohort`; it is generated."""
    if source is not None:
        raise BuildError("synthetic_ecg is generated: it takes no --source")
    return SyntheticEcg(**options)
