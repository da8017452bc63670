"""FG-CLEP's three switches against double loops; tag attention; what stands for an ECG without tags."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.objective_world import ROWS, WIDTH, K, make_batch, make_views, make_world, unit_rows

from ecgclip_jax.contracts import EcgOutput
from ecgclip_jax.models.tag_attention import TagAttention
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import FgClepSpec

HEADS: dict[str, Any] = {
    "embedding_dim": WIDTH,
    "ecg_head": HeadSpec(kind="linear"),
    "text_head": HeadSpec(kind="linear"),
    "attention_heads": 2,
}
ALL_ON = FgClepSpec(**HEADS)
ALL_OFF = FgClepSpec(soft_targets=False, l1_weight=0.0, tag_attention=False, **HEADS)


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


@pytest.mark.parametrize(
    ("soft", "attention", "l1_weight"),
    [(True, True, 0.5), (True, False, 0.0), (False, True, 0.0), (False, False, 0.5), (False, False, 0.0)],
)
def test_switches_by_hand(soft: bool, attention: bool, l1_weight: float) -> None:
    spec = FgClepSpec(soft_targets=soft, tag_attention=attention, l1_weight=l1_weight, **HEADS)
    tags = unit_rows(ROWS * K, 1)
    ecgs = unit_rows(ROWS * K, 2) if attention else np.repeat(unit_rows(ROWS, 2), K, axis=0)
    given = ecgs.reshape(ROWS, K, WIDTH) if attention else ecgs[::K]
    loss, _ = make_world(spec).loss_of(make_batch(), ecg=given, text=tags.reshape(ROWS, K, WIDTH))
    pairs, differences = [], []
    for i in range(ROWS * K):
        for j in range(ROWS * K):
            cosine, alike = float(ecgs[i] @ tags[j]), float(tags[i] @ tags[j])
            differences.append(abs(cosine - alike))
            if soft or i == j or i // K != j // K:
                target = (1 + alike) / 2 if soft else float(i == j)
                pairs.append(target * softplus(-10 * cosine) + (1 - target) * softplus(10 * cosine))
    assert float(loss) == pytest.approx(np.mean(pairs) + l1_weight * np.mean(differences), rel=1e-5)


@pytest.mark.parametrize("spec", [ALL_ON, ALL_OFF], ids=["on", "off"])
def test_gradients_are_finite_and_reach_every_parameter(spec: FgClepSpec) -> None:
    gradient, _ = make_world(spec).gradient(make_views(1), make_batch())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for name, part in {"text": gradient["text"], **gradient["objective"]}.items():
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(part)) > 0, name
    assert set(gradient["objective"]) == {"text_head", "log_scale"} | (
        {"tag_attention"} if spec.tag_attention else {"ecg_head"}
    )


def test_soft_targets_send_no_gradient_into_the_tags_that_make_them() -> None:
    """With ECGs at right angles to all tags, only the logits' gradient is left: none flows through the targets."""
    world = make_world(FgClepSpec(l1_weight=0.0, tag_attention=False, **HEADS))
    tags = unit_rows(ROWS * K, 1)
    tags[:, 0] = 0
    text = jnp.asarray(tags.reshape(ROWS, K, WIDTH), jnp.float32)
    ecg = jnp.zeros((ROWS, WIDTH)).at[:, 0].set(1.0)
    batch, params = make_batch(), world.params["objective"]
    loss = jax.jit(jax.grad(lambda text: world.objective.loss({"ecg": ecg, "text": text}, params, batch, ())[0]))
    gradient = np.asarray(loss(text))
    assert np.abs(gradient[..., 0]).max() > 0
    np.testing.assert_allclose(gradient[..., 1:], 0, atol=1e-7)


def attention() -> tuple[TagAttention, Any, Any, Any]:
    rng = np.random.default_rng(0)
    layer = TagAttention(6, WIDTH, 2)
    params = jax.jit(layer.init)(jax.random.key(0))
    tokens, tags = rng.normal(size=(ROWS, 5, 6)), rng.normal(size=(ROWS, K, WIDTH))
    return layer, params, jnp.asarray(tokens, jnp.float32), jnp.asarray(tags, jnp.float32)


def test_attention_is_the_weighted_mean_of_unit_patches_head_by_head() -> None:
    layer, params, tokens, tags = attention()
    kernels = {name: {k: np.asarray(v, float) for k, v in part.items()} for name, part in params.items()}
    found, own_patches = jax.jit(layer.attend)(params, tokens, tags), jax.jit(layer.apply)(params, tokens)
    for i in (0, 3):
        patches = np.asarray(tokens[i], float) @ kernels["patch"]["kernel"]
        patches /= np.linalg.norm(patches, axis=1, keepdims=True)
        np.testing.assert_allclose(own_patches[i], patches, atol=1e-6)
        for k in range(K):
            query = np.asarray(tags[i, k], float) @ kernels["query"]["kernel"] + kernels["query"]["bias"]
            key = patches @ kernels["key"]["kernel"] + kernels["key"]["bias"]
            for own in (slice(0, 4), slice(4, 8)):
                weights = np.exp(key[:, own] @ query[own] / 2)
                expected = weights @ patches[:, own] / weights.sum()
                np.testing.assert_allclose(found[i, k, own], expected, atol=1e-5)


def test_a_tag_only_says_where_to_look() -> None:
    """Where all patches are alike no tag can change what is seen, so nothing of it is in the ECG's embedding."""
    layer, params, tokens, tags = attention()
    attend = jax.jit(layer.attend)
    flat = jnp.broadcast_to(tokens[:, :1], tokens.shape)
    np.testing.assert_allclose(attend(params, flat, tags), attend(params, flat, -3 * tags), atol=1e-6)
    seen, otherwise = attend(params, tokens, tags), attend(params, tokens, -3 * tags)
    assert np.abs(seen - otherwise).max() > 1e-3


def test_without_a_tag_an_ecg_is_the_mean_of_its_patches() -> None:
    world = make_world(ALL_ON)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 5, WIDTH)), jnp.float32)
    output = EcgOutput(pooled=jnp.zeros((ROWS, WIDTH)), features=jnp.zeros((ROWS, WIDTH)), tokens=tokens)
    patches = np.asarray(world.heads["tag_attention"].apply(world.params["objective"]["tag_attention"], tokens), float)
    mean = patches.mean(axis=1)
    found = world.objective.ecg_embedding(world.heads, world.params["objective"], output)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    blind = EcgOutput(pooled=output.pooled, features=output.features)
    with pytest.raises(ValueError, match="tag_attention needs an ECG encoder that gives its map"):
        world.objective.ecg_embedding(world.heads, world.params["objective"], blind)


def test_heads_must_divide_the_dimensions_and_serve_single_records() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 8"):
        TagAttention(6, WIDTH, 3)
    with pytest.raises(ValueError, match="cannot embed a single ECG or prompt"):
        FgClepSpec(text_head=HeadSpec(kind="mlp_norm"))


def test_similarity_of_the_tower_is_the_centred_cosine_of_its_outputs() -> None:
    """An offset that all texts share changes nothing, and neither does what the projected embeddings look like."""
    world = make_world(FgClepSpec(l1_weight=0.0, tag_attention=False, similarity_of="tower", **HEADS))
    rng = np.random.default_rng(5)
    ecgs, tags, tower = unit_rows(ROWS, 2), unit_rows(ROWS * K, 1), rng.normal(size=(ROWS * K, WIDTH))
    centred = tower - tower.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    by_hand = []
    for i in range(ROWS * K):
        for j in range(ROWS * K):
            cosine, target = float(ecgs[i // K] @ tags[j]), (1 + centred[i] @ centred[j]) / 2
            by_hand.append(target * softplus(-10 * cosine) + (1 - target) * softplus(10 * cosine))
    for offset in (0.0, 3.0):
        given = {"ecg": ecgs, "text": tags.reshape(ROWS, K, WIDTH)}
        loss, _ = world.loss_of(make_batch(), **given, tag_similarity=(tower + offset).reshape(ROWS, K, WIDTH))
        assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-5)
