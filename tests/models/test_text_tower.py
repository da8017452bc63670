"""The text tower without PyTorch: masks, pooling, dropout by row key, precision, and checkpoints that do not fit."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ecgclip_jax.contracts import TextOutput
from ecgclip_jax.models.bert import Bert
from ecgclip_jax.models.bert_weights import WeightsError, load_bert, resolve_bert
from ecgclip_jax.models.functional import PureModule, parameter_count
from ecgclip_jax.models.layers import row_dropout
from ecgclip_jax.spec.encoders import BertSpec, TokenizerSpec

VOCABULARY = 40
SPEC = BertSpec(
    hidden=16, layers=2, heads=2, intermediate=32, max_positions=12, tokenizer=TokenizerSpec(max_tokens=12)
)  # fmt: skip


def bert(**changes: Any) -> PureModule:
    spec = BertSpec.model_validate(SPEC.model_dump() | changes)
    return PureModule(lambda rngs: Bert(spec, VOCABULARY, rngs=rngs))


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    init = jax.jit(bert().init, compiler_options={"xla_backend_optimization_level": 0})
    return init(jax.random.key(0))[0]


@cache
def compiled(**changes: Any) -> Any:
    module = bert(**changes)
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(
        lambda p, i, m, k: module.apply(p, {}, i, m, train=k is not None, keys=k)[0], compiler_options=options
    )


def run(params: dict, ids: Any, mask: Any, keys: Any = None, **changes: Any) -> TextOutput:
    return compiled(**changes)(params, jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool), keys)


def texts(count: int, tokens: int) -> np.ndarray:
    return np.random.default_rng(count).integers(1, VOCABULARY, (count, tokens))


def test_parameter_count_by_hand(params: dict) -> None:
    embeddings = (VOCABULARY + 12 + 2 + 2) * 16
    layer = 4 * (16 * 16 + 16) + 2 * 16 + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 16
    assert parameter_count(params) == embeddings + 2 * layer + (16 * 16 + 16)


def test_what_stands_in_padding_does_not_matter(params: dict) -> None:
    ids, mask = texts(3, 8), np.arange(8) < np.array([[8], [5], [1]])
    other = np.where(mask, ids, (ids + 7) % VOCABULARY)
    a, b = run(params, ids, mask), run(params, other, mask)
    np.testing.assert_array_equal(a.pooled, b.pooled)
    np.testing.assert_array_equal(np.asarray(a.tokens)[mask], np.asarray(b.tokens)[mask])
    short = run(params, ids[1:2, :5], mask[1:2, :5])
    np.testing.assert_allclose(short.pooled[0], a.pooled[1], atol=1e-6)


def test_a_text_of_padding_alone_is_finite(params: dict) -> None:
    assert np.all(np.isfinite(run(params, np.zeros((1, 4)), np.zeros((1, 4))).pooled))
    mean = run({k: v for k, v in params.items() if k != "pooler"}, np.zeros((1, 4)), np.zeros((1, 4)), pooling="mean")
    np.testing.assert_array_equal(mean.pooled, 0)


def test_three_poolings(params: dict) -> None:
    ids, mask = texts(2, 6), np.arange(6) < np.array([[6], [3]])
    bare = {name: part for name, part in params.items() if name != "pooler"}
    full = run(params, ids, mask)
    states = np.asarray(full.tokens)
    pooler = params["pooler"]
    expected = np.tanh(states[:, 0] @ np.asarray(pooler["kernel"]) + np.asarray(pooler["bias"]))
    np.testing.assert_allclose(full.pooled, expected, atol=1e-6)
    np.testing.assert_array_equal(run(bare, ids, mask, pooling="cls").pooled, states[:, 0])
    by_hand = [states[0].mean(axis=0), states[1, :3].mean(axis=0)]
    np.testing.assert_allclose(run(bare, ids, mask, pooling="mean").pooled, by_hand, atol=1e-6)
    assert set(jax.eval_shape(bert(pooling="cls").init, jax.random.key(0))[0]) == set(bare)


def test_dropout_follows_the_row_key_and_not_the_place_in_the_batch(params: dict) -> None:
    ids, mask = texts(4, 6), np.ones((4, 6))
    keys = jax.random.split(jax.random.key(1), 4)
    order = np.array([2, 0, 3, 1])
    plain, dropped = run(params, ids, mask), run(params, ids, mask, keys)
    assert np.abs(plain.pooled - dropped.pooled).min(axis=1).max() > 0
    np.testing.assert_allclose(run(params, ids[order], mask, keys[order]).pooled, dropped.pooled[order], atol=1e-6)
    np.testing.assert_allclose(run(params, ids[1:3], mask[1:3], keys[1:3]).pooled, dropped.pooled[1:3], atol=1e-6)
    np.testing.assert_array_equal(run(params, ids, mask, keys, dropout=0.0).pooled, plain.pooled)


def test_dropout_keeps_the_mean_and_draws_each_site_anew() -> None:
    keys = jax.random.split(jax.random.key(0), 8)
    ones = jnp.ones((8, 4000))
    first, second = (np.asarray(row_dropout(ones, 0.25, keys, site)) for site in (0, 1))
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (first == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert ((first == 0) & (second == 0)).mean() == pytest.approx(0.25**2, abs=0.01)


def test_bfloat16_keeps_parameters_and_pooled_output_in_float32(params: dict) -> None:
    ids, mask = texts(2, 6), np.ones((2, 6))
    half = run(params, ids, mask, dtype="bfloat16")
    assert half.tokens.dtype == jnp.bfloat16
    assert half.pooled.dtype == jnp.float32
    np.testing.assert_allclose(half.pooled, run(params, ids, mask).pooled, atol=0.03)


def test_a_text_longer_than_the_positions_is_an_error(params: dict) -> None:
    with pytest.raises(ValueError, match="13 tokens does not fit the text encoder's 12 positions"):
        run(params, texts(1, 13), np.ones((1, 13)))


def checkpoint(folder: Path, params: dict, *, old_names: bool = False, **config: Any) -> BertSpec:
    """Our parameters as a Hugging Face folder: written here independently of the loader's table."""
    layer = {
        "attention/query": "attention.self.query", "attention/key": "attention.self.key",
        "attention/value": "attention.self.value", "attention/out": "attention.output.dense",
        "attention/norm": "attention.output.LayerNorm", "intermediate": "intermediate.dense",
        "output": "output.dense", "norm": "output.LayerNorm",
    }  # fmt: skip
    tensors = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        *modules, name = [entry.key for entry in path]
        if modules[0] == "embeddings":
            base = "embeddings." + ("LayerNorm" if modules[1] == "norm" else f"{modules[1]}_embeddings")
        elif modules[0] == "pooler":
            base = "pooler.dense"
        else:
            base = f"encoder.layer.{modules[0].removeprefix('layer')}.{layer['/'.join(modules[1:])]}"
        is_norm = base.endswith("LayerNorm")
        kind = "bias" if name == "bias" else "weight"
        if old_names and is_norm:
            kind = {"weight": "gamma", "bias": "beta"}[kind]
        value = np.asarray(leaf)
        tensors[f"bert.{base}.{kind}"] = np.ascontiguousarray(value.T if name == "kernel" else value)
    save_file(tensors, folder / "model.safetensors")
    sizes = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 12, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(sizes | config))
    return BertSpec.model_validate(SPEC.model_dump() | {"weights": str(folder)})


@pytest.mark.parametrize("old_names", [False, True])
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, params: dict, old_names: bool) -> None:
    loaded = load_bert(checkpoint(tmp_path, params, old_names=old_names), VOCABULARY)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert {type(leaf) for leaf in jax.tree.leaves(loaded)} == {np.ndarray}


def test_half_precision_checkpoints_become_float32(tmp_path: Path, params: dict) -> None:
    for dtype in (np.float16, jnp.bfloat16):
        halves = jax.tree.map(lambda leaf, dtype=dtype: np.asarray(leaf).astype(dtype), params)
        loaded = load_bert(checkpoint(tmp_path, halves), VOCABULARY)
        assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}
        np.testing.assert_allclose(loaded["pooler"]["kernel"], params["pooler"]["kernel"], rtol=1e-2)


def test_sizes_come_from_the_checkpoint(tmp_path: Path, params: dict) -> None:
    checkpoint(tmp_path, params, layer_norm_eps=1e-5)
    spec = resolve_bert(BertSpec(weights=str(tmp_path), tokenizer=TokenizerSpec(max_tokens=12)))
    assert (spec.hidden, spec.layers, spec.max_positions, spec.norm_epsilon) == (16, 2, 12, 1e-5)
    assert spec.weights == str(tmp_path)
    assert resolve_bert(SPEC) == SPEC


def test_unused_words_of_the_checkpoint_are_left_out(tmp_path: Path, params: dict) -> None:
    spec = checkpoint(tmp_path, params)
    words = load_bert(spec, VOCABULARY - 3)["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(words, params["embeddings"]["word"]["embedding"][:-3])
    with pytest.raises(WeightsError, match=r"41 tokens and the checkpoint .* 40"):
        load_bert(spec, VOCABULARY + 1)


def test_a_missing_pooler_is_explained(tmp_path: Path, params: dict) -> None:
    spec = checkpoint(tmp_path, {name: part for name, part in params.items() if name != "pooler"})
    with pytest.raises(WeightsError, match=r"no pooler.*set it to 'cls' or 'mean'"):
        load_bert(spec, VOCABULARY)
    without = BertSpec.model_validate(spec.model_dump() | {"pooling": "cls"})
    assert "pooler" not in load_bert(without, VOCABULARY)


def test_other_encoders_are_refused(tmp_path: Path, params: dict) -> None:
    spec = checkpoint(tmp_path, params)
    with pytest.raises(WeightsError, match=r"hidden 32 \(checkpoint: 16\)"):
        load_bert(BertSpec.model_validate(spec.model_dump() | {"hidden": 32}), VOCABULARY)
    checkpoint(tmp_path, params | {"layer2": params["layer1"]})
    with pytest.raises(WeightsError, match=r"0 tensors missing .* 16 unknown"):
        load_bert(spec, VOCABULARY)
    checkpoint(tmp_path, {name: part for name, part in params.items() if name != "layer1"})
    with pytest.raises(WeightsError, match=r"16 tensors missing \['encoder.layer.1.attention"):
        load_bert(spec, VOCABULARY)
    checkpoint(tmp_path, params, model_type="roberta")
    with pytest.raises(WeightsError, match=r"model_type is 'roberta'.*'bert' only"):
        load_bert(spec, VOCABULARY)
    checkpoint(tmp_path, params, hidden_act="gelu_new")
    with pytest.raises(WeightsError, match="hidden_act is 'gelu_new'"):
        resolve_bert(spec)


def test_broken_files_are_one_clear_error(tmp_path: Path, params: dict) -> None:
    spec = checkpoint(tmp_path, params)
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_bert(spec, VOCABULARY)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="only safetensors are read"):
        load_bert(spec, VOCABULARY)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        load_bert(spec, VOCABULARY)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        load_bert(spec, VOCABULARY)
    with pytest.raises(WeightsError, match="weights is not set"):
        load_bert(SPEC, VOCABULARY)
    with pytest.raises(WeightsError, match="is no folder here"):
        resolve_bert(BertSpec(weights=str(tmp_path / "nowhere")))
