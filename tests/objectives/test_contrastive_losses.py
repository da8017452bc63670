"""The reference losses against hand computation: slow loops over pairs in numpy float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.objectives import reference

BATCH, DIM = 16, 8
LOSSES = ("infonce_sum", "infonce_mean", "sigmoid")
SOFT_WEIGHT, SOFT_SCALE = 0.3, 4.0


def normalised(rng: np.random.Generator) -> jax.Array:
    x = rng.normal(size=(BATCH, DIM))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)


def make_arguments(masked: bool) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Embeddings, factors and scalars; group ids; validity."""
    rng = np.random.default_rng(0)
    leaves = {"ecg": normalised(rng), "text": normalised(rng)}
    leaves |= {"scale": jnp.asarray(1 / 0.07), "bias": jnp.asarray(-3.0)}
    groups = rng.integers(0, 12, size=(BATCH, 2 if masked else 0)).astype(np.int32)
    valid = np.ones(BATCH, bool)
    valid[[3, 11]] = not masked
    return leaves | {"factors": normalised(rng)}, jnp.asarray(groups), jnp.asarray(valid)


def call(name: str, leaves: dict[str, jax.Array], groups: jax.Array, valid: jax.Array, soft: bool = False):
    """One of the losses, with its metrics."""
    ecg, text, scale, bias = (leaves[k] for k in ("ecg", "text", "scale", "bias"))
    factors = leaves["factors"] if soft else None
    if name == "sigmoid":
        return reference.sigmoid(ecg, text, scale, bias, groups, valid, factors=factors)
    targets = {"factors": factors, "soft_target_weight": SOFT_WEIGHT, "soft_target_scale": SOFT_SCALE} if soft else {}
    return reference.infonce(ecg, text, scale, groups, valid, direction=name.removeprefix("infonce_"), **targets)


class Masked:
    """Which pairs count, by the definition: a list of columns for every valid row."""

    def __init__(self, groups: jax.Array, valid: jax.Array) -> None:
        ids, self.valid = np.asarray(groups), np.asarray(valid)
        self.rows = np.flatnonzero(self.valid)
        self.columns = {i: [j for j in self.rows if j == i or not (ids[i] == ids[j]).any()] for i in self.rows}


def exact(leaves: dict[str, jax.Array]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Cosines and similarities of all pairs, scale and bias, in float64."""
    ecg, text, factors = (np.asarray(leaves[k], np.float64) for k in ("ecg", "text", "factors"))
    return ecg @ text.T, factors @ factors.T, float(leaves["scale"]), float(leaves["bias"])


def cross_entropy_by_hand(logits: np.ndarray, similarity: np.ndarray, i: int, columns: list[int], soft: bool) -> float:
    """Of row i among its columns."""
    total = sum(np.exp(logits[i, j]) for j in columns)
    spread = sum(np.exp(SOFT_SCALE * similarity[i, j]) for j in columns)
    loss = 0.0
    for j in columns:
        target = float(i == j)
        if soft:
            target = (1 - SOFT_WEIGHT) * target + SOFT_WEIGHT * np.exp(SOFT_SCALE * similarity[i, j]) / spread
        loss -= target * np.log(np.exp(logits[i, j]) / total)
    return loss


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("direction", ["sum", "mean"])
def test_infonce_by_hand(direction: str, soft: bool) -> None:
    leaves, groups, valid = make_arguments(masked=True)
    cosine, similarity, scale, _ = exact(leaves)
    pairs = Masked(groups, valid)
    total = sum(
        cross_entropy_by_hand(logits, similarity, i, pairs.columns[i], soft)
        for logits in (scale * cosine, scale * cosine.T)
        for i in pairs.rows
    )
    loss, _ = call(f"infonce_{direction}", leaves, groups, valid, soft)
    assert float(loss) == pytest.approx(total / len(pairs.rows) / (2 if direction == "mean" else 1), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["rows", "pairs"])
def test_sigmoid_by_hand(reduction: str, soft: bool) -> None:
    leaves, groups, valid = make_arguments(masked=True)
    cosine, similarity, scale, bias = exact(leaves)
    pairs = Masked(groups, valid)
    losses = []
    for i in pairs.rows:
        for j in pairs.columns[i]:
            probability = 1 / (1 + np.exp(-(scale * cosine[i, j] + bias)))
            target = (1 + similarity[i, j]) / 2 if soft else float(i == j)
            losses.append(-target * np.log(probability) - (1 - target) * np.log(1 - probability))
    factors = leaves["factors"] if soft else None
    arguments = (leaves["ecg"], leaves["text"], leaves["scale"], leaves["bias"], groups, valid)
    loss, _ = reference.sigmoid(*arguments, factors=factors, reduction=reduction)
    assert float(loss) == pytest.approx(sum(losses) / len(pairs.rows if reduction == "rows" else losses), rel=1e-5)


@pytest.mark.parametrize("reduction", ["rows", "pairs"])
def test_l1_alignment_by_hand(reduction: str) -> None:
    leaves, _, valid = make_arguments(masked=True)
    cosine, similarity, _, _ = exact(leaves)
    rows = np.flatnonzero(valid)
    differences = np.abs(cosine - similarity)[np.ix_(rows, rows)]
    expected = differences.mean() if reduction == "pairs" else differences.sum(axis=1).mean()
    loss = reference.l1_alignment(leaves["ecg"], leaves["text"], leaves["factors"], valid, reduction=reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    leaves, groups, valid = make_arguments(masked=True)
    order = np.random.default_rng(1).permutation(BATCH)
    shuffled = leaves | {k: leaves[k][order] for k in ("ecg", "text", "factors")}
    before = call(name, leaves, groups, valid, soft=True)
    after = call(name, shuffled, groups[order], valid[order], soft=True)
    for found, expected in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_metrics_of_perfect_and_of_collapsed_embeddings() -> None:
    eye, same = jnp.eye(BATCH), jnp.ones((BATCH, 4)) / 2
    scale, groups, valid = jnp.asarray(10.0), jnp.zeros((BATCH, 0), jnp.int32), jnp.ones(BATCH, bool)
    _, perfect = reference.infonce(eye, eye, scale, groups, valid, direction="sum")
    assert {k: float(v) for k, v in perfect.items()} == {
        "recall_at_1_ecg_to_text": 1.0,
        "recall_at_1_text_to_ecg": 1.0,
        "positive_cosine": 1.0,
        "negative_cosine": 0.0,
    }
    loss, collapsed = reference.infonce(same, same, scale, groups, valid, direction="mean")
    assert float(collapsed["recall_at_1_ecg_to_text"]) == 0.0
    assert float(loss) == pytest.approx(np.log(BATCH), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("soft", [False, True])
def test_no_valid_row_gives_zero_loss_and_finite_gradients(name: str, soft: bool) -> None:
    leaves, groups, _ = make_arguments(masked=False)
    nobody = jnp.zeros(BATCH, bool)
    (value, _), gradients = jax.value_and_grad(lambda x: call(name, x, groups, nobody, soft), has_aux=True)(leaves)
    assert float(value) == 0.0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_logits_are_float32_for_bfloat16_towers() -> None:
    leaves, groups, valid = make_arguments(masked=False)
    halves = leaves | {k: leaves[k].astype(jnp.bfloat16) for k in ("ecg", "text")}
    loss, metrics = call("infonce_sum", halves, groups, valid)
    assert {loss.dtype, *(m.dtype for m in metrics.values())} == {jnp.dtype(jnp.float32)}
