"""A run folder as a model: the same answer whatever the batch, and one clear error for whatever is wrong with it."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_cohort import tiny_ecg
from support.tiny_evaluation import STEPS, trained_run

from ecgclip_jax import inference
from ecgclip_jax.checkpoints import CheckpointError
from ecgclip_jax.cli.main import main
from ecgclip_jax.inference import Model, ModelError, load_model, untrained
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.signal.preprocessing import preprocess
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.tokenizer import encode_texts, save, train_wordpiece

TEXTS = ["atrial fibrillation", "paced rhythm", "sinus bradycardia and paced rhythm", "atrial fibrillation"]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(trained_run().folder)


@pytest.fixture(scope="module")
def ecg_uv() -> np.ndarray:
    return np.stack([tiny_ecg(n) for n in range(11)])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A run folder to spoil."""
    return Path(shutil.copytree(trained_run().folder, tmp_path / "run"))


def test_embeddings_do_not_depend_on_batch_order_or_company(model: Model, ecg_uv: np.ndarray) -> None:
    mains_hz = np.where(np.arange(11) % 3 == 0, np.nan, 50.0)
    whole = model.encode_ecg(ecg_uv, mains_hz, batch=16)
    assert whole.embedding.shape == (11, 16)
    assert whole.embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole.embedding, axis=1), 1, atol=1e-5)
    parts = model.encode_ecg(ecg_uv, mains_hz, batch=3)  # eight devices make it batches of eight, the last padded
    order = np.random.default_rng(0).permutation(11)
    moved = model.encode_ecg(ecg_uv[order], mains_hz[order], batch=16)
    for name in ("embedding", "features"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(getattr(moved, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-5)
    alone = model.encode_ecg(ecg_uv[10:], mains_hz[10:], batch=8)
    np.testing.assert_allclose(alone.embedding, whole.embedding[10:], rtol=1e-4, atol=1e-5)


def test_encode_ecg_is_preprocessing_tower_and_head(model: Model, ecg_uv: np.ndarray) -> None:
    parts, spec = model._parts, model.experiment.signal
    mains, known = {"mains_hz": jnp.full(8, 50.0)}, {"mains_hz": jnp.ones(8, bool)}
    ecg = preprocess(spec, build_operators(spec), jnp.asarray(ecg_uv[:8]), mains, known)
    stats = model.batch_stats["ecg"]
    output, _ = jax.jit(partial(parts.towers.ecg, train=False))(model.params["ecg"], stats, ecg)
    expected = parts.objective.ecg_embedding(parts.heads, model.params["objective"], output)
    found = model.encode_ecg(ecg_uv[:8], np.full(8, 50.0), batch=8)
    np.testing.assert_allclose(found.embedding, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features, output.features, rtol=1e-4, atol=1e-5)


def test_encode_text_is_tokenizer_tower_and_head(model: Model) -> None:
    parts = model._parts
    ids, mask = encode_texts(model.tokenizer, TEXTS, model.experiment.text_encoder.tokenizer.max_tokens)
    output = jax.jit(partial(parts.towers.text, train=False))(model.params["text"], ids, mask)
    expected = np.asarray(parts.objective.text_embedding(parts.heads, model.params["objective"], output))
    found = model.encode_text(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[0], found[3])
    many = model.encode_text(TEXTS * 20)  # more than one batch, the last one padded
    np.testing.assert_allclose(many, np.tile(found, (20, 1)), rtol=1e-4, atol=1e-5)


def test_nothing_in_nothing_out(model: Model, ecg_uv: np.ndarray) -> None:
    nothing = model.encode_ecg(ecg_uv[:0], batch=8)
    assert nothing.embedding.shape == (0, 16)
    assert nothing.features.shape == (0, model.encode_ecg(ecg_uv[:1], batch=8).features.shape[1])
    assert model.encode_text([]).shape == (0, 16)


def test_the_untrained_baseline_differs_by_seed_alone(model: Model) -> None:
    first, again, other = untrained(model, 1), untrained(model, 1), untrained(model, 2)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (
        model.fingerprint == load_model(trained_run().folder).fingerprint not in (first.fingerprint, other.fingerprint)
    )
    assert (first.step, model.step) == (0, STEPS)
    shapes = (jax.tree.map(np.shape, m.params) for m in (model, first))
    assert next(shapes) == next(shapes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ecg: ecg / 1000, "int16 microvolts"),
        (lambda ecg: ecg[:, :2500], r"found int16 \[11, 2500, 12\]"),
        (lambda ecg: ecg.transpose(0, 2, 1), r"\[11, 12, 5000\]"),
    ],
)
def test_what_is_no_stored_ecg_is_refused(model: Model, ecg_uv: np.ndarray, change, says: str) -> None:
    encode = getattr(Model.encode_ecg, "__wrapped__", Model.encode_ecg)  # without the run-time check of annotations
    with pytest.raises(ValueError, match=says):
        encode(model, change(ecg_uv))
    with pytest.raises(ValueError, match="one frequency for each of 11 ECGs"):
        encode(model, ecg_uv, np.full(3, 50.0))


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no run folder \(no experiment.json"):
        load_model(tmp_path)


def test_a_step_that_was_not_saved_is_named(copy: Path) -> None:
    assert load_model(copy, step=2).step == 2
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 .*there are: 2, 4"):
        load_model(copy, step=7)


def test_a_swapped_tokenizer_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")
    save(train_wordpiece(["quite another text"], 64), copy / "tokenizer")
    with pytest.raises(ModelError, match=r"tokenizer in .* is not the one of checkpoint 4"):
        load_model(copy)


def test_a_damaged_checkpoint_is_refused(copy: Path) -> None:
    largest = max((p for p in (copy / "checkpoints" / "4").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match="changed since it was saved; delete that folder to go on from step 2"):
        load_model(copy)


def edit(folder: Path, part: str, **changes: object) -> None:
    path = folder / "experiment.json"
    facts = json.loads(path.read_text())
    facts["experiment"][part] |= changes
    path.write_text(json.dumps(facts))


def test_an_experiment_that_is_not_of_the_weights_is_refused(copy: Path) -> None:
    edit(copy, "signal", leads=["II", "V1"])
    with pytest.raises(ModelError, match=r"does not describe checkpoint 4: signal.leads.1 is 'V2' there and 'V1' here"):
        load_model(copy)
    edit(copy, "signal", leads=["II", "V99"])
    with pytest.raises(UserError, match="does not describe an experiment of this version"):
        load_model(copy)


def test_the_evaluation_of_a_run_may_change_afterwards(copy: Path) -> None:
    edit(copy, "evaluation", min_test_positives=7)
    assert load_model(copy).experiment.evaluation.min_test_positives == 7


def test_the_embed_command_writes_what_the_model_says(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = trained_run(), tmp_path / "out"
    words = ["embed", str(run.folder), "tiny/test", "--data-dir", str(run.data_dir), "--out", str(out)]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert re.search(r"16 ECGs, [\d,]+ ECG/s in batches of \d+", first), first
    ecg_uv = np.stack([tiny_ecg(n) for n in range(64, 80)])
    expected = model.encode_ecg(ecg_uv, np.full(16, 50.0))
    np.testing.assert_allclose(np.load(out / "embedding.npy"), expected.embedding, rtol=1e-4, atol=1e-5)
    assert main([*words, "--batch", "16"]) == 0
    assert "all done before" in capsys.readouterr().out


def test_batches_are_chosen_from_free_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "free_bytes", lambda device: 2**40)
    assert model.ecg_batch(10**6) == 512 * jax.device_count()
    assert model.ecg_batch(100) == 64
    monkeypatch.setattr(inference, "free_bytes", lambda device: 1)
    assert model.ecg_batch(10**6) == jax.device_count()
