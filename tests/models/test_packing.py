"""Texts that share rows: the outputs and gradients of texts by themselves, and nobody left out where room is short."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import TextTokens
from ecgclip_jax.data.packing import pack_texts, packed_rows
from ecgclip_jax.models.build import Towers, build_towers
from ecgclip_jax.parallel.host import to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.encoders import BertSpec, HeadSpec, ResNet1DSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment, MemorySpec, MeshSpec, Source
from ecgclip_jax.spec.objectives import InfoNCESpec
from ecgclip_jax.spec.signal import SignalSpec
from ecgclip_jax.training.program import abstract_batch

TEXTS, TOKENS, VOCABULARY = 16, 60, 50
CLS, SEP = 2, 3


def tokens(seed: int) -> TextTokens:
    """Texts of 2 to 60 tokens, two of each ECG."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([[2, 60, 59], rng.integers(3, 40, TEXTS - 3)])
    ids = rng.integers(5, VOCABULARY, (TEXTS, TOKENS), dtype=np.int32)
    mask = np.arange(TOKENS)[None] < lengths[:, None]
    ids[:, 0] = CLS
    ids[np.arange(TEXTS), lengths - 1] = SEP
    ids[~mask] = 0
    fields: tuple[Any, Any] = ids.reshape(-1, 2, TOKENS), mask.reshape(-1, 2, TOKENS)
    return TextTokens(*fields)


def experiment(pooling: str = "mean", **memory: Any) -> Experiment:
    text = {"pooling": pooling, "dropout": 0.0, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 32}
    return Experiment(
        name="packing",
        summary="test",
        data=DataSpec(sources=(Source(cohort="none"),), batch_global=8, texts_per_ecg=2),
        signal=SignalSpec(name="tiny", rate_hz=50, samples=512, leads=("II",)),
        ecg_encoder=ResNet1DSpec(width=4, pooling="mean", norm_groups=2),
        text_encoder=BertSpec(tokenizer=TokenizerSpec(max_tokens=TOKENS), **text),  # type: ignore[arg-type]
        objective=InfoNCESpec(ecg_head=HeadSpec(kind="linear")),
        memory=MemorySpec(**memory),
    )


def towers_and_params(pooling: str) -> tuple[Towers, Any]:
    towers = build_towers(experiment(pooling), VOCABULARY)
    params = towers._text.init(jax.random.key(0))[0]  # type: ignore[union-attr]
    # Kernels of 0.02 leave attention close to uniform: larger ones tell whom a token looks at.
    return towers, jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, params)


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_packed_texts_are_what_they_are_alone(pooling: str) -> None:
    """Outputs and gradients within 1e-5, on a mesh of 4 devices that pack their own texts."""
    towers, params = towers_and_params(pooling)
    texts, mesh = tokens(0), build_mesh(MeshSpec(), jax.devices()[:4])
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(TEXTS, 16)), jnp.float32)
    packed, cut_short = pack_texts(texts, 4, 4, 0.5)
    assert cut_short == 0
    assert packed.ids.shape == (8, 128)

    def alone(params: Any, ids: Any, mask: Any) -> Any:
        pooled = towers.text(params, ids, mask, train=True).pooled
        return (pooled * weights).sum(), pooled

    def together(params: Any, packed: Any) -> Any:
        pooled = towers.packed_text(params, packed).pooled
        return (pooled * weights).sum(), pooled

    ids, mask = (jnp.asarray(x).reshape(TEXTS, TOKENS) for x in (texts.ids, texts.mask))
    (_, expected), expected_gradient = jax.jit(jax.value_and_grad(alone, has_aux=True))(params, ids, mask)
    with jax.set_mesh(mesh):
        (_, found), gradient = jax.jit(jax.value_and_grad(together, has_aux=True))(params, to_global(packed, mesh))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    largest = max(float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(expected_gradient))
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * max(np.linalg.norm(b), 1e-3 * largest)


def unpacked(packed: Any, packs: int) -> list[list[int]]:
    """The tokens of each text, pack by pack, by position."""
    found = []
    each = np.asarray(packed.first).size // packs
    for ids, text, position in zip(
        *(np.split(np.asarray(x), packs) for x in (packed.ids, packed.text, packed.position)), strict=True
    ):
        for number in range(each):
            here = text == number
            order = np.argsort(position[here])
            assert position[here][order].tolist() == list(range(here.sum()))
            found.append(ids[here][order].tolist())
    return found


def test_where_room_is_short_the_longest_are_cut_and_none_is_left_out() -> None:
    """Eight texts of a pack in one row of 128 tokens."""
    texts = tokens(3)
    packed, cut_short = pack_texts(texts, 2, 2, 1 / 8)
    ids, mask = np.asarray(texts.ids).reshape(TEXTS, -1), np.asarray(texts.mask).reshape(TEXTS, -1)
    whole = [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
    found = unpacked(packed, 2)
    cut = [(a, b) for a, b in zip(found, whole, strict=True) if a != b]
    assert len(cut) == cut_short > 0
    assert all(a == [*b[: len(a) - 1], SEP] and len(a) >= 2 for a, b in cut)
    for part in (slice(0, 8), slice(8, 16)):
        kept = [len(a) for a, b in zip(found[part], whole[part], strict=True) if a != b]
        spared = [len(a) for a, b in zip(found[part], whole[part], strict=True) if a == b]
        assert len(set(kept)) <= 1
        assert max(spared) <= min(kept, default=128)
        assert sum(map(len, found[part])) > 128 - 8, "as long as there is room"


def test_every_token_has_a_place_of_its_own() -> None:
    for seed in range(20):
        texts = tokens(seed)
        packed, cut_short = pack_texts(texts, 4, 4, 0.75)
        assert cut_short == 0
        mask = np.asarray(texts.mask).reshape(TEXTS, -1)
        ids = np.asarray(texts.ids).reshape(TEXTS, -1)
        assert unpacked(packed, 4) == [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
        first = np.asarray(packed.first).reshape(4, -1)
        assert (np.asarray(packed.ids).reshape(4, -1)[np.arange(4)[:, None], first] == CLS).all()
    assert packed_rows(10, 0.25) == 3


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_compiled_step_expects_what_is_packed(micro_batches: int) -> None:
    """`ecgclip compile` sees no data: the shapes it compiles for must be those of packed batches."""
    mesh = build_mesh(MeshSpec(), jax.devices()[:4])
    expected = abstract_batch(experiment(packed_rows_per_text=0.4, micro_batches=micro_batches), mesh).texts
    packed, _ = pack_texts(tokens(0), 4 * micro_batches, 4, 0.4)
    found = to_global(packed, mesh, micro_batches)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), found) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.sharding), expected
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"text_encoder.dropout": 0.1}, r"needs text_encoder\.dropout 0"),
        ({"text_encoder.tokenizer.max_tokens": 200}, "at most 128, found 200"),
        ({"optimizer.frozen": ("^text/",)}, "no text goes through the text tower in a step"),
    ],
)
def test_what_cannot_be_packed_is_said(changes: dict[str, Any], expected: str) -> None:
    packed = experiment(packed_rows_per_text=0.25)
    with pytest.raises(ValueError, match=expected):
        packed.replace(changes)
