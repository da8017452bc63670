"""A frozen text tower whose outputs are kept: what is learned is the same, and no cache is taken for another."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.tiny_cohort import tiny_record, write_cohort
from support.tiny_training import TOKENIZER, TOKENS, tiny_experiment, train_on_one_device

from ecgclip_jax.checkpoints import load_params
from ecgclip_jax.contracts import EcgInput, EcgOutput, RowKeys, TextRows
from ecgclip_jax.models import build
from ecgclip_jax.models.layers import Rngs
from ecgclip_jax.parallel.host import replicated
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, MeshSpec, OptimizerSpec, RunSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.text.tokenizer import encode_texts
from ecgclip_jax.training import text_cache
from ecgclip_jax.training.run_folder import RunFolder, open_run_folder
from ecgclip_jax.training.state import build_parts
from ecgclip_jax.training.text_cache import TextCache, TextCacheError, open_text_cache

STATEMENTS = ("Sinus rhythm.", "Left axis deviation.", "Atrial fibrillation with a rapid response.", "Low voltage.")


class SamplesTower(nnx.Module):
    """An ECG tower that is compiled in no time: eight samples through one linear layer."""

    def __init__(self, spec: ResNet1DSpec, *, leads: int, samples: int, rngs: Rngs, **_: Any) -> None:
        self.linear = nnx.Linear(8 * leads, spec.feature_width, rngs=nnx.Rngs(params=rngs.params()))
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, ecg: EcgInput, *, train: bool, keys: RowKeys | None = None) -> EcgOutput:
        features = self.linear(10 * ecg.signal[:, :: ecg.signal.shape[1] // 8].reshape(len(ecg.signal), -1))
        self.calls[...] += jnp.asarray(train, jnp.float32)
        return EcgOutput(pooled=features, features=features, pooled_mean=features)


@pytest.fixture(autouse=True)
def quick_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ResNet1D", SamplesTower)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of one to four statements."""
    folder = tmp_path_factory.mktemp("several_texts")
    reports = [" ".join(STATEMENTS[n % 4 : n % 4 + 1 + n % 3]) for n in range(20)]
    write_cohort(folder, {"train": [tiny_record(n, report=report) for n, report in enumerate(reports)]})
    return folder


def frozen(**changes: Any) -> Experiment:
    """Two statements of each ECG, a text tower at rest; two micro-batches if it is cached."""
    parts: dict[str, Any] = {
        "data": DataSpec(sources=(Source(cohort="tiny"),), batch_global=16, texts_per_ecg=2),
        "text_encoder": BertSpec(
            tokenizer=TOKENIZER, hidden=16, layers=1, heads=2, intermediate=16, max_positions=TOKENS, dropout=0.0
        ),
        "ecg_encoder": ResNet1DSpec(depth=10, width=4, pooling="mean", norm_groups=2),
        "objective": InfoNCESpec(
            embedding_dim=16, ecg_head=HeadSpec(kind="linear"), text_head=HeadSpec(hidden=16), learn_temperature=True
        ),
        "optimizer": OptimizerSpec(peak_lr=1e-3, schedule="constant", weight_decay=1e-4, frozen=("^text/",)),
        "run": RunSpec(steps=4, log_every=1, checkpoint_every=2),
    }
    return tiny_experiment(**(parts | changes))


def losses(workdir: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.asarray([(line["loss"], line["grad_norm"]) for line in lines if "loss" in line])


def test_a_cached_run_is_the_live_run_also_in_two_passes_resident_and_after_a_resume(
    data_dir: Path, tmp_path: Path
) -> None:
    """Loss and norm of the gradient: to 1e-5 in the first update, then rounding may drift."""
    live, cached = tmp_path / "live", tmp_path / "cached"
    train_on_one_device(frozen(memory=MemorySpec(text_cache="off")), live, data_dir)
    two_passes = frozen(memory=MemorySpec(micro_batches=2)).replace({"data.input": "resident"})
    train_on_one_device(two_passes, cached, data_dir)
    assert not (live / "text_cache").exists()
    np.testing.assert_allclose(losses(cached)[0], losses(live)[0], rtol=1e-5)
    np.testing.assert_allclose(losses(cached), losses(live), rtol=1e-3)
    assert all(0 <= json.loads(line).get("input_share", 0) <= 1 for line in (cached / "metrics.jsonl").open())

    whole = losses(cached)
    shutil.rmtree(cached / "checkpoints" / "4")
    assert train_on_one_device(two_passes, cached, data_dir).started_at == 2
    np.testing.assert_array_equal(losses(cached), whole)
    (before, _, _), (after, _, _) = load_params(cached, 2), load_params(cached, 4)
    jax.tree.map(np.testing.assert_array_equal, before["text"], after["text"])


class Opened:
    """A run folder with a text tower and its cache on 8 devices."""

    def __init__(self, experiment: Experiment, workdir: Path, data_dir: Path) -> None:
        self.folder: RunFolder = open_run_folder(experiment, workdir, data_dir, resume=True)
        self.parts = build_parts(experiment, self.folder.facts["vocab_size"])
        self.mesh = build_mesh(MeshSpec())
        init = jax.jit(self.parts.towers.init, out_shardings=replicated(self.mesh))
        self.params, _ = init(jax.random.key(experiment.seed))
        self.texts = self.folder.index.texts

    def cache(self, texts: Sequence[str] | None = None, params: Any = None) -> TextCache:
        tower = self.params["text"] if params is None else params
        return open_text_cache(self.parts, self.mesh, self.folder, texts or self.texts, tower)


@pytest.fixture
def opened(run_data: Path, tmp_path: Path) -> Opened:
    return Opened(frozen(data=DataSpec(sources=(Source(cohort="tiny"),), batch_global=16)), tmp_path / "run", run_data)


def test_rows_of_the_cache_are_what_the_tower_says_of_their_texts(opened: Opened) -> None:
    cache = opened.cache()
    assert opened.folder.tokenizer is not None
    ids, mask = encode_texts(opened.folder.tokenizer, opened.texts, TOKENS)
    expected = np.asarray(
        opened.parts.towers.text(opened.params["text"], jnp.asarray(ids), jnp.asarray(mask), train=False).pooled
    )
    rows = np.asarray([[3, 0], [0, 4]], np.int32)
    pooled = cache.take(TextRows(rows)).pooled  # type: ignore[arg-type]
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected[rows], rtol=1e-5, atol=1e-6)
    halved = frozen(memory=MemorySpec(text_cache="on", text_cache_dtype="bfloat16"), data=opened.parts.experiment.data)
    opened.parts = build_parts(halved, opened.folder.facts["vocab_size"])
    np.testing.assert_allclose(opened.cache().take(TextRows(rows)).pooled, expected[rows], rtol=8e-3)  # type: ignore[arg-type]


def test_a_stopped_cache_goes_on_where_it_was(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "_TOKENS_PER_DEVICE", 1)
    monkeypatch.setattr(text_cache, "_BATCHES_PER_CHUNK", 1)
    texts = [f"{a} {b}" for a in STATEMENTS for b in STATEMENTS]
    noted = text_cache._note

    def stopped(*arguments: Any) -> None:
        noted(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(text_cache, "_note", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened.cache(texts)
    (facts,) = opened.folder.path.glob("text_cache/*/facts.json")
    assert json.loads(facts.read_text())["done"] == 8
    part = np.load(facts.with_name("vectors.npy")).copy()
    whole = opened.cache(texts).vectors
    assert (np.abs(part).sum(axis=1) > 0).sum() == 8
    assert (np.abs(whole).sum(axis=1) > 0).all()
    again = np.abs(part).sum(axis=1) > 0
    np.testing.assert_array_equal(whole[again], part[again])


def test_another_tower_or_other_texts_are_another_cache_and_said(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened.cache()
    with caplog.at_level(logging.WARNING):
        assert opened.cache().path == first.path
    assert not caplog.records
    other = opened.cache(params=jax.tree.map(lambda leaf: leaf + 0.1, opened.params["text"]))
    assert other.path != first.path
    assert "other weights" in caplog.text
    assert np.abs(other.vectors - first.vectors).max() > 1e-3
    assert opened.cache([*opened.texts, "Another one."]).path not in (first.path, other.path)
    assert "other texts" in caplog.text


def test_a_cache_under_anothers_name_is_refused(opened: Opened) -> None:
    facts = opened.cache().path / "facts.json"
    facts.write_text(facts.read_text().replace('"tokenizer": "', '"tokenizer": "0'))
    with pytest.raises(TextCacheError, match=r"not the cache that its name says \(other tokenizer \(0.*remove it"):
        opened.cache()


def test_above_open_access_the_cache_lies_with_the_data(tmp_path: Path) -> None:
    records = [tiny_record(n) for n in range(20)]
    write_cohort(tmp_path / "data", {"train": records}, access="credentialed")
    spec = frozen(data=DataSpec(sources=(Source(cohort="tiny"),), batch_global=16))
    opened = Opened(spec, tmp_path / "run", tmp_path / "data")
    assert opened.cache().path.parent == tmp_path / "data" / "text_cache"
    assert not list((tmp_path / "run").rglob("vectors.npy"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer.frozen": ("^text/embeddings/",)}, "the text tower is trained"),
        ({"text_encoder.dropout": 0.1}, "dropout 0.1 draws the tower's outputs anew"),
        ({"data.texts_per_ecg": 1, "data.statement_keep_probability": 0.5}, "draws each report anew in every step"),
    ],
)
def test_what_changes_in_every_step_is_not_cached(changes: dict[str, Any], expected: str) -> None:
    assert frozen().caches_text
    assert not frozen().replace(changes).caches_text
    with pytest.raises(ValueError, match=expected):
        frozen().replace(changes | {"memory.text_cache": "on"})
