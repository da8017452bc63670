"""The probe that counts epochs: its arithmetic against loops in float64, its choice of epoch, its bad input."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgclip_jax.evaluation.protocols.gradient_probe import fit_gradient_probe, mean_auroc
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, ProbeError
from ecgclip_jax.spec.evaluation import GradientProbeSpec

WIDTH, LABELS = 6, 3


def data(seed: int, n: int = 30) -> ProbeData:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, WIDTH)).astype(np.float32) * 2 + 1
    truth = features[:, :LABELS] + rng.normal(size=(n, LABELS)) > 1
    return ProbeData(features, truth, rng.random((n, LABELS)) < 0.9)


def by_hand(train: ProbeData, settings: GradientProbeSpec, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases after each epoch, without a batch norm; Kingma & Ba, algorithm 1, and PyTorch's decay."""
    rng, n = np.random.default_rng(seed), len(train.features)
    order = np.argsort(rng.random((settings.epochs, n)), axis=1)
    w = rng.uniform(-(WIDTH**-0.5), WIDTH**-0.5, (WIDTH, LABELS)).astype(np.float64)
    b = rng.uniform(-(WIDTH**-0.5), WIDTH**-0.5, LABELS).astype(np.float64)
    theta = np.concatenate([w, b[None]])
    m, v, t, path = np.zeros_like(theta), np.zeros_like(theta), 0, []
    for epoch in range(settings.epochs):
        for start in range(0, n, settings.batch):
            rows = order[epoch, start : start + settings.batch]
            x = np.concatenate([train.features[rows], np.ones((len(rows), 1))], axis=1).astype(np.float64)
            known = train.known[rows]
            error = known * (1 / (1 + np.exp(-x @ theta)) - train.positive[rows]) / known.sum()
            passed = t if settings.milestone_in_updates else epoch
            rate = settings.learning_rate * (0.1 if 0 < settings.milestone <= passed else 1)
            g, t = x.T @ error, t + 1
            if not settings.decoupled:
                g = g + settings.weight_decay * theta
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            theta = theta - (rate * settings.weight_decay * theta if settings.decoupled else 0) - step
        path.append(theta.copy())
    return np.array(path)[:, :WIDTH], np.array(path)[:, WIDTH]


@pytest.mark.parametrize(("decoupled", "in_updates"), [(False, True), (True, False)])
def test_every_epoch_is_adam_as_pytorch_has_it(decoupled: bool, in_updates: bool) -> None:
    settings = GradientProbeSpec(
        learning_rate=0.05, weight_decay=0.1, decoupled=decoupled, batch=8, epochs=4, milestone=2,
        milestone_in_updates=in_updates,
    )  # fmt: skip
    train, validation = data(0), data(1)
    path = fit_gradient_probe(train, validation, settings, seed=3)
    weight, bias = by_hand(train, settings, seed=3)
    np.testing.assert_allclose(path.weight, weight, atol=2e-4)
    np.testing.assert_allclose(path.bias, bias, atol=2e-4)
    merit = [
        np.mean([
            roc_auc_score(validation.positive[k, i], path.scores(validation.features, e)[k, i])
            for i, k in enumerate(validation.known.T)
        ])
        for e in range(4)
    ]  # fmt: skip
    assert path.chosen == int(np.argmax(merit))
    assert mean_auroc(validation, path.scores(validation.features, 2)) == pytest.approx(merit[2])


def test_a_batch_norm_is_folded_in_and_undoes_scale_and_shift() -> None:
    settings = GradientProbeSpec(learning_rate=0.05, batch=30, epochs=60, batch_norm=True)
    train = data(0)
    stretched = ProbeData((train.features * 1000 - 7).astype(np.float32), train.positive, train.known)
    plain, scaled = (fit_gradient_probe(d, d, settings, seed=0) for d in (train, stretched))
    np.testing.assert_allclose(
        plain.scores(train.features, 59), scaled.scores(stretched.features, 59), rtol=0.05, atol=0.05
    )
    assert mean_auroc(train, plain.scores(train.features, 59)) > 0.85


def test_what_cannot_be_fitted_or_chosen_is_said() -> None:
    train, settings = data(0), GradientProbeSpec(epochs=1, batch=30)
    never = ProbeData(train.features, train.positive & [True, True, False], train.known)
    assert np.isnan(fit_gradient_probe(never, train, settings, 0).scores(train.features, 0)).all(axis=0).tolist() == [
        False, False, True,
    ]  # fmt: skip
    nothing = ProbeData(train.features, np.zeros_like(train.positive), train.known)
    with pytest.raises(ProbeError, match="training split"):
        fit_gradient_probe(nothing, train, settings, 0)
    with pytest.raises(ProbeError, match="no epoch can be chosen"):
        fit_gradient_probe(train, nothing, settings, 0)
