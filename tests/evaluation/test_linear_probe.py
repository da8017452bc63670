"""The linear probe against scikit-learn at the optimum, and its choice of L2."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, fit_probe
from ecgclip_jax.evaluation.protocols.logistic import fit_rotation, solve
from ecgclip_jax.spec.evaluation import LogisticProbeSpec

GRID = (1e-3, 1e-1, 10.0)
SETTINGS = LogisticProbeSpec(inverse_l2=GRID)


def _data(seed: int, n: int = 400, width: int = 24, labels: int = 5) -> tuple[ProbeData, np.ndarray]:
    """Correlated features of very different scales, from common to rare labels, a sixth of the labels unknown."""
    mixing = np.random.default_rng(0).normal(size=(width, width)) * np.logspace(0, -2.5, width)[:, None]
    truth = np.random.default_rng(1).normal(size=(width, labels))
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) @ mixing
    logits = features @ truth + rng.logistic(size=(n, labels)) - np.linspace(0, 5, labels)
    known = rng.random((n, labels)) < 5 / 6
    return ProbeData((features * np.logspace(-2, 3, width) + 7).astype(np.float32), logits > 0, known), truth


def test_every_label_and_strength_reaches_scikit_learns_optimum() -> None:
    data, _ = _data(2)
    rotation = fit_rotation(data.features)
    rotated = rotation.apply(data.features).astype(np.float64)
    solution = solve(
        rotated.astype(np.float32),
        rotation.variance.astype(np.float32),
        data.positive,
        data.known,
        np.asarray(GRID, np.float32),
    )
    standard = (data.features - data.features.mean(axis=0)) / data.features.std(axis=0)
    for k, inverse_l2 in enumerate(GRID):
        for label in range(data.positive.shape[1]):
            known, y = data.known[:, label], data.positive[data.known[:, label], label]
            peer = LogisticRegression(C=inverse_l2, tol=1e-10, max_iter=20_000).fit(standard[known], y)
            weight = np.asarray(solution.weight)[:, k, label].astype(np.float64)
            ours = _objective(rotated[known], y, weight, float(solution.bias[k, label]), inverse_l2)
            theirs = _objective(standard[known], y, peer.coef_[0], peer.intercept_[0], inverse_l2)
            assert ours == pytest.approx(theirs, rel=1e-4)
            assert float(solution.objective[k, label]) == pytest.approx(theirs, rel=1e-4)
            np.testing.assert_allclose(
                rotated @ weight + solution.bias[k, label], peer.decision_function(standard), atol=0.05
            )
    assert int(solution.iterations) < 100


def _objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: float, inverse_l2: float) -> float:
    logits = x @ weight + bias
    return float(np.mean(np.logaddexp(0, logits) - y * logits) + weight @ weight / (2 * inverse_l2 * len(y)))


def test_a_separable_label_reaches_its_optimum_too() -> None:
    data, _ = _data(2)
    positive = data.positive.copy()
    positive[:, 0] = data.features[:, 0] > data.features[:, 0].mean()
    rotation = fit_rotation(data.features)
    rotated = rotation.apply(data.features)
    variance, strengths = rotation.variance.astype(np.float32), np.asarray(GRID, np.float32)
    solution = solve(rotated, variance, positive, np.ones_like(positive), strengths)
    standard = (data.features - data.features.mean(axis=0)) / data.features.std(axis=0)
    peer = LogisticRegression(C=GRID[-1], tol=1e-10, max_iter=20_000).fit(standard, positive[:, 0])
    theirs = _objective(standard, positive[:, 0], peer.coef_[0], peer.intercept_[0], GRID[-1])
    assert float(solution.objective[-1, 0]) == pytest.approx(theirs, rel=1e-3)


def test_strength_is_the_one_of_lowest_validation_loss() -> None:
    train, validation = _data(2)[0], _data(3)[0]
    probe = fit_probe(train, validation, SETTINGS)
    losses = []
    for inverse_l2 in GRID:
        logits = (
            fit_probe(train, train, LogisticProbeSpec(inverse_l2=(inverse_l2,) * 3))
            .scores(validation.features)
            .astype(np.float64)
        )
        loss = np.where(validation.known, np.logaddexp(0, logits) - validation.positive * logits, 0)
        losses.append(np.mean(loss.sum(axis=0) / validation.known.sum(axis=0)))
    np.testing.assert_allclose(list(probe.validation_loss.values()), losses, rtol=1e-4)
    assert probe.inverse_l2 == GRID[int(np.argmin(losses))]


def test_labels_that_a_split_cannot_define_are_told_apart() -> None:
    train, validation = _data(2)[0], _data(3)[0]
    train.positive[:, 0] = False
    validation.positive[:, 1] = False
    probe = fit_probe(train, validation, SETTINGS)
    scores = probe.scores(validation.features)
    assert np.isnan(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()
    assert probe.fitted.tolist() == [False, True, True, True, True]
    assert probe.chosen_elsewhere.tolist() == [False, True, False, False, False]


def test_nothing_to_fit_or_to_choose_on_is_said() -> None:
    train, validation = _data(2)[0], _data(3)[0]
    with pytest.raises(ValueError, match="no label has a positive and a negative"):
        fit_probe(ProbeData(train.features, np.zeros_like(train.positive), train.known), validation, SETTINGS)
    with pytest.raises(ValueError, match="no validation record has a known label"):
        fit_probe(train, ProbeData(validation.features, validation.positive, np.zeros_like(validation.known)), SETTINGS)


def test_a_feature_that_is_constant_in_training_has_no_say() -> None:
    train, validation = _data(2)[0], _data(3)[0]
    train.features[:, 3] = 7.0
    probe = fit_probe(train, validation, SETTINGS)
    moved = validation.features.copy()
    moved[:, 3] += 1e3
    np.testing.assert_allclose(probe.scores(moved), probe.scores(validation.features), atol=1e-4)


def test_balanced_classes_and_raw_features_reach_scikit_learns_optimum() -> None:
    """The grid of the ecg-fix protocol: class weights and features that keep their scales."""
    data, _ = _data(2, n=200, labels=2)
    every = ProbeData((data.features / 100).astype(np.float32), data.positive, np.ones_like(data.known))
    settings = LogisticProbeSpec(inverse_l2=(0.1,), standardise=(False,), class_weight=("balanced",))
    scores = fit_probe(every, every, settings).scores(every.features)
    centred = every.features.astype(np.float64) - every.features.mean(axis=0)
    for label in range(2):
        peer = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-10, max_iter=20_000)
        peer.fit(centred, every.positive[:, label])
        np.testing.assert_allclose(scores[:, label], peer.decision_function(centred), atol=0.05)
    both = LogisticProbeSpec(inverse_l2=(0.1,), standardise=(True, False), class_weight=("none", "balanced"))
    chosen = fit_probe(every, every, both)
    assert chosen.setting == "standardised features, class weights none"
