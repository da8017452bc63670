"""Embeddings of whole splits: in chunks that a stopped pass need not repeat, and never of patients by accident."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.sources import CohortSplit, open_cohort
from ecgclip_jax.evaluation import cohort_embedding, embedding
from ecgclip_jax.evaluation.cohort_embedding import EmbedError, embed_cohort
from ecgclip_jax.evaluation.embedding import Store, embed_split
from ecgclip_jax.evaluation.trivial import trivial_features
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.pseudonyms import make_key, pseudonym

RECORDS = 11


@dataclass
class CountingModel:
    """Says of an ECG its number (every sample of lead I), and remembers which it was asked."""

    fingerprint: str = "first"
    access: str = "open"
    asked: list[int] = field(default_factory=list)
    stop_after: int = 10**6
    experiment: Any = None

    def encode_ecg(self, ecg_uv: np.ndarray, mains_hz: np.ndarray | None, batch: int) -> SimpleNamespace:
        if len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        numbers = ecg_uv[:, 0, 0].astype(np.float32)
        self.asked += numbers.astype(int).tolist()
        return SimpleNamespace(embedding=numbers[:, None], features=np.stack([numbers, -numbers], axis=1))

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return np.zeros((len(texts), 1))


def split_of(folder: Path, access: str = "open") -> CohortSplit:
    write_cohort(folder, {"test": [tiny_record(n) for n in range(RECORDS)]}, access=access)
    return open_cohort(folder, Source(cohort="tiny", split="test"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 4)
    monkeypatch.setattr(embedding, "READ_AT_A_TIME", 2)
    monkeypatch.setattr(cohort_embedding, "CHUNK", 4)


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_evaluation_goes_on_with_the_next_chunk(tmp_path: Path) -> None:
    split, store = split_of(tmp_path), Store(tmp_path / "kept")
    rows = np.asarray([10, 0, 1, 2, 9, 8, 3, 4, 5, 6, 7])
    with pytest.raises(KeyboardInterrupt):
        embed_split(split, rows, {"a": CountingModel(stop_after=6)}, store, lambda n: None)
    model, done = CountingModel(), list[int]()
    arrays, trivial = embed_split(split, rows, {"a": model}, store, done.append)
    assert model.asked == rows[4:].tolist()
    assert sum(done) == RECORDS
    np.testing.assert_array_equal(arrays["a"].embedding[:, 0], rows)
    np.testing.assert_array_equal(arrays["a"].features[:, 1], -rows)
    sexes = ["female"] * RECORDS
    expected = trivial_features(split.read_ecg(rows.tolist()), np.full(RECORDS, 61.0, np.float32), sexes)
    np.testing.assert_array_equal(trivial, expected)
    assert not list((tmp_path / "kept").glob("*chunk*"))
    again = CountingModel()
    embed_split(split, rows, {"a": again}, store, done.append)
    assert again.asked == []
    other = CountingModel(fingerprint="second")
    embed_split(split, rows, {"a": other}, store, done.append)
    assert other.asked == rows.tolist()


@pytest.mark.usefixtures("small_chunks")
def test_a_cohort_is_embedded_into_files_and_goes_on_where_it_was(tmp_path: Path) -> None:
    split, out = split_of(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        embed_cohort(CountingModel(stop_after=6), split, out, batch=2)
    assert json.loads((out / "facts.json").read_text())["done"] == 4
    model = CountingModel()
    done = embed_cohort(model, split, out, batch=2)
    assert model.asked == list(range(4, RECORDS))
    assert (done.records, done.computed) == (RECORDS, 7)
    assert done.ecg_per_s > 0
    np.testing.assert_array_equal(np.load(out / "embedding.npy")[:, 0], np.arange(RECORDS))
    np.testing.assert_array_equal(np.load(out / "features.npy")[:, 1], -np.arange(RECORDS))
    table = pq.read_table(out / "records.parquet")
    assert table.column("record_id").to_pylist() == [f"r{n:04d}" for n in range(RECORDS)]
    facts = json.loads((out / "facts.json").read_text())
    assert (facts["model"], facts["split"], facts["done"], facts["access"]) == ("first", split.name, RECORDS, "open")
    assert facts["ecg_per_s"] > 0
    assert embed_cohort(CountingModel(stop_after=0), split, out, batch=2).computed == 0
    with pytest.raises(EmbedError, match=r"holds other embeddings \(model 'first' there, 'second' here\)"):
        embed_cohort(CountingModel(fingerprint="second"), split, out, batch=2)


def test_above_open_access_only_when_asked_and_with_pseudonyms(tmp_path: Path) -> None:
    split, out = split_of(tmp_path, access="credentialed"), tmp_path / "out"
    with pytest.raises(EmbedError, match=r"is credentialed: .*--with-patient-data"):
        embed_cohort(CountingModel(), split, out, batch=4)
    assert not out.exists()
    embed_cohort(CountingModel(), split, out, batch=4, with_patient_data=True)
    table = pq.read_table(out / "records.parquet")
    expected = pseudonym(make_key(split.data_dir), "tiny", "record", "r0003")
    assert table.column("record_id").to_pylist()[3] == expected
    assert all("p0" not in patient[:2] for patient in table.column("patient_id").to_pylist())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    split, out = split_of(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(EmbedError, match="neither empty nor holds embeddings"):
        embed_cohort(CountingModel(), split, out, batch=4)
