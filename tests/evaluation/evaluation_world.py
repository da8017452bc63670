"""A world in which the truth is known: cohorts in memory and models that read labels off the waveform."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecgclip_jax.data.sources import CohortSplit, WaveformReader
from ecgclip_jax.spec.experiment import DataSpec, EvaluationSpec, Experiment, Source
from ecgclip_jax.spec.signal import merl
from ecgclip_jax.text.prompts import load_prompts

CONCEPTS = (
    "atrial_fibrillation",
    "sinus_bradycardia",
    "left_bundle_branch_block",
    "t_wave_inversion",
    "dextrocardia",
    "hyperkalaemia",
    "posterior_infarction",
)
NAMES = {c: c.replace("_", " ") for c in CONCEPTS[:4]}
"""What reports name; the other concepts are unseen."""


class InMemory(WaveformReader):
    """Waveforms that never were in a shard."""

    def __init__(self, ecg_uv: np.ndarray) -> None:
        self.ecg_uv = ecg_uv

    def __len__(self) -> int:
        return len(self.ecg_uv)

    def read(self, rows: list[int]) -> np.ndarray:
        return self.ecg_uv[rows]


def make_split(
    split: str,
    seed: int,
    patients: int = 60,
    *,
    noise: float = 0.6,
    codes: dict[str, str] | None = None,
    known_patients: bool = True,
    access: str = "open",
    language: str = "en",
    labels: np.ndarray | None = None,
) -> CohortSplit:
    """A split whose sample i of lead I holds concept i (1 mV if present) plus noise; `codes` renames label codes."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 3, patients))
    truth = rng.random((len(patient), len(CONCEPTS))) < 0.35 if labels is None else labels[: len(patient)]
    ecg_uv = rng.integers(-30, 30, (len(patient), 5000, 12), np.int8).astype(np.int16)
    ecg_uv[:, : len(CONCEPTS), 0] = 1000 * (truth + noise * rng.normal(size=truth.shape))
    found = [[c for c, there in zip(CONCEPTS, row, strict=True) if there] for row in truth]
    reports = [", ".join(NAMES[c] for c in row if c in NAMES) or "unremarkable" for row in found]
    count = len(patient)
    table = pa.table(
        {
            "record_id": [f"{split}-{seed}-{i}" for i in range(count)],
            "window_index": [0] * count,
            "patient_id": [f"{split}-{seed}-{p}" if known_patients else "" for p in patient],
            "patient_id_known": [known_patients] * count,
            "age_years": [float(a) for a in rng.integers(20, 90, count)],
            "sex": [("female", "male")[i % 2] for i in range(count)],
            "mains_hz": [50.0] * count,
            "report_raw": reports,
            "report_clean": reports,
            "report_language": [language] * count,
            "label_vocabulary": ["synthetic"] * count,
            "label_codes": [["sinus_rhythm", *((codes or {}).get(c, c) for c in row)] for row in found],
            "label_values": [[100.0] * (len(row) + 1) for row in found],
            "waveform_sha256": [hashlib.sha256(e.tobytes()).hexdigest() for e in ecg_uv],
        }
    )
    return CohortSplit("fake", "1.0.0", split, Path("nowhere/fake/1.0.0"), access, "CC0", table, InMemory(ecg_uv))


@dataclass(frozen=True)
class _Encoded:
    embedding: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class FakeModel:
    """Reads concepts off the waveform (`skill` 1) or not at all (0); its texts know every concept by its prompts."""

    experiment: Experiment
    skill: float = 1.0
    seed: int = 0
    access: str = "open"

    @property
    def fingerprint(self) -> str:
        return f"fake-{self.skill}-{self.seed}"

    def encode_ecg(self, ecg_uv: np.ndarray, mains_hz: np.ndarray | None = None, batch: int = 64) -> _Encoded:
        seen = ecg_uv[:, : len(CONCEPTS), 0] / 1000.0
        noise = np.stack(
            [np.random.default_rng([self.seed, *e[:4, 5] % 999]).normal(size=len(CONCEPTS)) for e in ecg_uv]
        )
        latent = (self.skill * seen + (1 - self.skill) * noise).astype(np.float32)
        mixing = np.random.default_rng(self.seed).normal(size=(len(CONCEPTS), 10)).astype(np.float32)
        return _Encoded(latent - 0.35, latent @ mixing)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        wordings = load_prompts("en").prompts
        named = [[t in wordings[c] or NAMES.get(c, "?") in t for c in CONCEPTS] for t in texts]
        vectors = np.array(named, np.float32) - 0.15
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_experiment(**evaluation: object) -> Experiment:
    """An experiment whose evaluation uses the splits `train`, `validation` and `test` of the cohort `fake`."""
    sources = {role: (Source(cohort="fake", split=role),) for role in ("train", "validation", "test")}
    spec = EvaluationSpec.model_validate(
        sources | {"bootstrap_replicates": 100, "min_test_positives": 5, "macro_min_labels": 2} | evaluation
    )
    data = DataSpec(sources=(Source(cohort="fake", split="train"),), batch_global=16)
    return Experiment(name="fake", summary="a fake", data=data, signal=merl(), evaluation=spec)
