"""Synthetic hospitals in memory, small enough for a test: models read the truth off the waveform, or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from evaluation_world import InMemory

from ecgclip_jax.data.sources import CohortSplit, NoSuchSplitError
from ecgclip_jax.signal.hospitals import load_world
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.objectives import SupervisedSpec
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.spec.suites import CohortSet, SuiteSpec, TestCohort
from tfds_builders.common.schema import arrow_schema

ECG_TASKS = ("atrial_fibrillation", "left_bundle_branch_block", "sinus_bradycardia")
ECHO_TASKS = {"reduced_ejection_fraction": "lvef_percent", "pulmonary_hypertension": "pasp_mmhg"}
TASKS = (*ECG_TASKS, *ECHO_TASKS)
COHORT = "synthetic_hospitals"
EMPTY: dict[str, Any] = {"string": "", "int32": 0, "float": float("nan"), "bool": False}


@lru_cache(maxsize=8)
def _draws(seed: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, what lies under it in the ECGs, and the noise on it; most worlds begin with the same."""
    rng = np.random.default_rng(seed)
    truth = rng.random((patients, len(TASKS))) < 0.3
    background_uv = rng.integers(-30, 30, (patients, 5000, 12)).astype(np.int16)
    return truth, background_uv, rng.normal(size=truth.shape)


def make_split(split: str, seed: int, patients: int = 200, **changes: Any) -> CohortSplit:
    """A split whose sample i of lead I holds task i (1 mV if present) plus noise.

    Changes: `truth` [patients, tasks], `patient_ids`, `known_patients`, `weight`.
    """
    drawn, background_uv, noise = _draws(seed, patients)
    truth = changes.get("truth", drawn)
    signal = changes.get("signal", truth)
    ecg_uv = background_uv.copy()
    ecg_uv[:, : len(TASKS), 0] = 1000 * (signal + 0.6 * noise)
    hidden = json.dumps({"hidden": dict.fromkeys(load_world().severities, 0.0), "log_hazard": 0.0})
    ids = changes.get("patient_ids", [f"{split}-{seed}-{p}" for p in range(patients)])
    known = changes.get("known_patients", True)
    rows = []
    for i in range(patients):
        row: dict[str, Any] = {
            f.name: [] if pa.types.is_list(f.type) else EMPTY.get(str(f.type)) for f in arrow_schema()
        }
        codes = ["sinus_rhythm", *(t for t, there in zip(ECG_TASKS, truth[i], strict=False) if there)]
        numbers = {
            "lvef_percent": 30.0 if truth[i, 3] else 60.0,
            "pasp_mmhg": 80.0 if truth[i, 4] else 20.0,
            "echo_gap_days": 3.0,
            "days_since_first_ecg": 0.0,
            "sampling_weight": float(changes.get("weight", np.ones(patients))[i]),
        }
        row |= {
            "record_id": f"{split}-{seed}-{i}", "patient_id": ids[i] if known else "", "patient_id_known": known,
            "label_vocabulary": COHORT, "label_codes": codes, "label_values": [100.0] * len(codes),
            "age_years": float(20 + i % 60), "sex": ("female", "male")[i % 2], "device": ("cart a", "cart b")[i % 2],
            "measurement_names": list(numbers), "measurement_values": list(numbers.values()),
            "lead_present": [True] * 12, "mains_hz": 50.0, "source_row": hidden,
            "waveform_sha256": hashlib.sha256(ecg_uv[i].tobytes()).hexdigest(),
        }  # fmt: skip
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=arrow_schema())
    return CohortSplit(COHORT, "1.0.0", split, Path("nowhere"), "open", "CC0", table, InMemory(ecg_uv))


@dataclass(frozen=True)
class _Encoded:
    embedding: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class SuiteFake:
    """Features that hold the truth and its noise (`skill` 1) or other noise (0); without a text tower."""

    skill: float = 1.0
    seed: int = 0
    access: str = "open"
    params: dict[str, Any] = field(default_factory=dict)
    batch_stats: dict[str, Any] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)

    @property
    def experiment(self) -> Experiment:
        data = DataSpec(sources=(Source(cohort=COHORT, split="train"),), batch_global=16)
        objective = SupervisedSpec(measurements=("age_years",))
        return Experiment(
            name="fake", summary="a fake", data=data, signal=merl(), text_encoder=None, objective=objective
        )

    @property
    def fingerprint(self) -> str:
        return f"fake-{self.skill}-{self.seed}"

    def encode_ecg(self, ecg_uv: np.ndarray, mains_hz: np.ndarray | None = None, batch: int = 64) -> _Encoded:
        self.calls.append(len(ecg_uv))
        seen = ecg_uv[:, : len(TASKS), 0] / 1000.0
        noise = np.stack([np.random.default_rng([self.seed, *e[:4, 5] % 999]).normal(size=len(TASKS)) for e in ecg_uv])
        latent = (self.skill * seen + (1 - self.skill) * noise).astype(np.float32)
        return _Encoded(latent, latent)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        raise AssertionError("no text tower")


def make_suite(**changes: Any) -> SuiteSpec:
    """Probes on two fractions, an internal test and one external hospital."""
    sources = {split: Source(cohort=COHORT, split=split) for split in ("train", "validation", "test", "birch", "gone")}
    cohorts = CohortSet(
        name=COHORT,
        train=(sources["train"],),
        validation=(sources["validation"],),
        internal=TestCohort(name="internal", sources=(sources["test"],)),
        external=tuple(TestCohort(name=name, sources=(sources[name],)) for name in ("birch", "gone")),
    )
    spec = SuiteSpec(
        name="tiny",
        summary="a tiny suite",
        cohorts=(cohorts,),
        tasks=TASKS,
        protocols=("zero_shot", "linear_probe", "nearest_neighbours"),
        fractions=(0.2, 1.0),
        draws=2,
        min_test_positives=5,
        macro_min_labels=2,
        map_records=0,
        bootstrap_replicates=100,
        permutations=200,
    )
    return spec.replace(changes)


def make_world(**changes: CohortSplit) -> dict[str, CohortSplit]:
    """Splits by name; one hospital of the suite is not there."""
    made = {name: make_split(name, seed) for seed, name in enumerate(("train", "validation", "test", "birch"))}
    return made | changes


def opener(world: dict[str, CohortSplit]) -> Any:
    """In place of `open_cohort`."""

    def open_cohort(data_dir: object, source: Source) -> CohortSplit:
        if source.split not in world:
            raise NoSuchSplitError(f"no split {source.split}")
        return replace(world[source.split])

    return open_cohort
