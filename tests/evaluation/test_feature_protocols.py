"""Neighbours, ridge and Cox regression on frozen features against scikit-learn, scipy and sums written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import pearsonr
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from ecgclip_jax.evaluation.protocols.cox_likelihood import FollowUp, log_likelihood, maximise
from ecgclip_jax.evaluation.protocols.knn import TEMPERATURE, NeighboursError, fit_neighbours
from ecgclip_jax.evaluation.protocols.lead_subsets import LEAD_SUBSETS, only_leads
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData
from ecgclip_jax.evaluation.protocols.regression import RegressionData, fit_ridge
from ecgclip_jax.evaluation.protocols.time_to_event import SurvivalData, TimeToEventError, fit_cox
from ecgclip_jax.metrics.regression import mean_absolute_error, pearson_r, r_squared
from ecgclip_jax.metrics.survival import concordance_index
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV

WIDTH = 12


def features(seed: int, n: int = 150) -> np.ndarray:
    """Correlated, of different scales, far from the origin."""
    mixing = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)) * np.logspace(0, -1.5, WIDTH)[:, None]
    return (np.random.default_rng(seed).normal(size=(n, WIDTH)) @ mixing + 3).astype(np.float32)


def labelled(seed: int) -> ProbeData:
    x, rng = features(seed), np.random.default_rng(seed + 100)
    logits = (x - 3) @ np.random.default_rng(1).normal(size=(WIDTH, 5)) + rng.logistic(scale=0.5, size=(len(x), 5))
    known = np.repeat(rng.random((len(x), 2)) < (1.0, 0.6), (2, 3), axis=1)
    positive = logits > (0, 1, 0, 2, 0)
    positive[:, 4] = False
    return ProbeData(x, positive, known)


def test_neighbours_are_scikit_learns_among_the_records_that_know_a_label() -> None:
    train, held, test = labelled(2), labelled(3), labelled(4)
    grid = (1, 7, 1000)
    found = fit_neighbours(train, held, grid)
    assert found.fitted.tolist() == [True, True, True, True, False]

    def peer(k: int, queries: ProbeData) -> np.ndarray:
        columns = []
        for label in range(4):
            known = train.known[:, label]
            nearest = KNeighborsClassifier(
                min(k, int(known.sum())), metric="cosine", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
            ).fit(train.features[known] - train.features.mean(axis=0), train.positive[known, label])
            columns.append(nearest.predict_proba(queries.features - train.features.mean(axis=0))[:, 1])
        return np.stack(columns, axis=1)

    for k in grid:
        share = fit_neighbours(train, held, (k,)).scores(test.features)
        np.testing.assert_allclose(share[:, :4], peer(k, test), atol=1e-4)
        assert np.isnan(share[:, 4]).all()
        precision = [
            sklearn_metrics.average_precision_score(
                held.positive[held.known[:, i], i], peer(k, held)[held.known[:, i], i].astype(np.float32)
            )
            for i in range(4)
        ]
        assert found.validation_precision[k] == pytest.approx(np.mean(precision), abs=2e-3)
    assert found.k == max(grid, key=lambda k: found.validation_precision[k])
    flipped = replace(train, positive=train.positive ^ ~train.known)
    assert np.array_equal(fit_neighbours(flipped, held, grid).scores(test.features), found.scores(test.features), True)
    with pytest.raises(NeighboursError, match="found none of 5"):
        fit_neighbours(train, replace(held, known=np.zeros_like(held.known)), grid)


def test_ridge_is_scikit_learns_and_validation_chooses_for_each_target() -> None:
    grid = (1e-1, 1e2, 1e5)
    splits = []
    for seed, n in ((5, 60), (6, 80), (7, 80)):
        x, rng = features(seed, n), np.random.default_rng(seed + 100)
        target = x @ np.random.default_rng(2).normal(size=(WIDTH, 4)) * 20 + rng.normal(
            scale=(5, 200, 1, 1), size=(n, 4)
        )
        target[rng.random((n, 4)) < 0.3] = np.nan
        splits.append(RegressionData(x, target))
    train, held, test = splits
    train.target[:, 2] = np.where(np.isnan(train.target[:, 2]), np.nan, 7.0)
    held.target[:, 3] = np.nan
    found = fit_ridge(train, held, grid)
    assert [t is None for t in found.targets] == [False, False, True, True]
    predicted = found.predict(test.features)
    assert np.isnan(predicted[:, 2:]).all()
    for column in (0, 1):
        known, checked = ~np.isnan(train.target[:, column]), ~np.isnan(held.target[:, column])
        mean, spread = train.features[known].mean(axis=0), train.features[known].std(axis=0)
        peers = [
            Ridge(alpha).fit((train.features[known] - mean) / spread, train.target[known, column]) for alpha in grid
        ]
        errors = [
            np.square(p.predict((held.features[checked] - mean) / spread) - held.target[checked, column]).mean()
            for p in peers
        ]
        target = found.targets[column]
        assert target is not None
        np.testing.assert_allclose(list(target.validation_error.values()), errors, rtol=1e-3)
        assert target.strength == grid[int(np.argmin(errors))]
        best = peers[int(np.argmin(errors))].predict((test.features - mean) / spread)
        np.testing.assert_allclose(predicted[:, column], best, rtol=1e-3, atol=1e-2)


def test_regression_metrics_are_scikit_learns_and_scipys_on_known_targets() -> None:
    rng = np.random.default_rng(0)
    target, noise = rng.normal(60, 15, 200), rng.normal(size=200)
    predicted = 0.5 * target + 10 * noise
    known = rng.random(200) < 0.7
    masked = np.where(known, target, np.nan)
    assert mean_absolute_error(masked, predicted) == pytest.approx(
        sklearn_metrics.mean_absolute_error(target[known], predicted[known])
    )
    assert r_squared(masked, predicted) == pytest.approx(sklearn_metrics.r2_score(target[known], predicted[known]))
    assert pearson_r(masked, predicted) == pytest.approx(pearsonr(target[known], predicted[known]).statistic)
    assert r_squared(target, np.full(200, target.mean())) == pytest.approx(0)
    for metric in (mean_absolute_error, r_squared, pearson_r):
        assert np.isnan(metric(np.full(3, np.nan), np.zeros(3)))
        assert np.isnan(metric(np.arange(3.0), np.array([0, np.nan, 1])))
    assert np.isnan(r_squared(np.ones(3), np.arange(3.0)))
    assert np.isnan(pearson_r(np.arange(3.0), np.ones(3)))


def survivors(seed: int, n: int = 120) -> SurvivalData:
    """Hazards that depend on the features, follow-up in whole months (ties), a third censored."""
    x, rng = features(seed, n), np.random.default_rng(seed + 100)
    risk = (x - 3) @ np.linspace(1, -1, WIDTH)
    time, censored = rng.exponential(np.exp(-risk)) * 8, rng.exponential(12, n)
    return SurvivalData(x, np.ceil(np.minimum(time, censored)), time <= censored)


def efron_by_hand(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Every moment and every tie by itself."""
    value = 0.0
    for moment in np.unique(time[event]):
        dying = event & (time == moment)
        for taken in range(dying.sum()):
            total = np.exp(risk[time >= moment]).sum() - taken / dying.sum() * np.exp(risk[dying]).sum()
            value -= np.log(total)
        value += risk[dying].sum()
    return float(value)


def test_coxs_likelihood_is_efrons_and_newton_finds_its_maximum() -> None:
    data = survivors(8)
    follow_up = FollowUp.of(data.time, data.event)
    x = (data.features - data.features.mean(axis=0)).astype(np.float64)[:, :4]
    assert len(np.unique(data.time[data.event])) < data.event.sum() - 20
    rng = np.random.default_rng(0)
    for weight in rng.normal(size=(3, 4)):
        expected = efron_by_hand(data.time, data.event, x @ weight)
        assert log_likelihood(follow_up, x @ weight) == pytest.approx(expected, rel=1e-10)
        assert log_likelihood(follow_up, x @ weight + 700) == pytest.approx(expected, rel=1e-8)
    for penalty in (0.0, 5.0):

        def objective(weight: np.ndarray, penalty: float = penalty) -> float:
            return -efron_by_hand(data.time, data.event, x @ weight) + penalty / 2 * weight @ weight

        peer = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-5})
        found = maximise(x, follow_up, penalty, np.zeros(4))
        np.testing.assert_allclose(found, peer.x, atol=1e-4)
        # From far away too, where full steps overshoot.
        np.testing.assert_allclose(maximise(x, follow_up, penalty, np.full(4, 2.0)), found, atol=1e-5)


def test_cox_regression_orders_events_and_validation_chooses_its_penalty() -> None:
    train, held, test = survivors(8), survivors(9), survivors(10)
    model = fit_cox(train, held)
    losses = {
        penalty: -efron_by_hand(held.time, held.event, fit_cox(train, train, (penalty,)).risk(held.features))
        / held.event.sum()
        for penalty in (1e4, 10.0)
    }
    for penalty, loss in losses.items():
        assert model.validation_loss[penalty] == pytest.approx(loss, rel=1e-4)
    assert model.penalty == min(model.validation_loss, key=lambda p: model.validation_loss[p])
    assert concordance_index(test.time, test.event, model.risk(test.features)) > 0.75
    unknown = replace(train, time=np.where(np.arange(120) < 5, np.nan, train.time))
    without = replace(train, features=train.features[5:], time=train.time[5:], event=train.event[5:])
    assert np.array_equal(fit_cox(unknown, held).weight, fit_cox(without, held).weight)
    with pytest.raises(TimeToEventError, match="expected events in validation, found none among 120"):
        fit_cox(train, replace(held, event=np.zeros(120, bool)))


def test_leads_are_taken_away_and_nothing_else() -> None:
    ecg_uv = np.random.default_rng(0).integers(-900, 900, (2, 7, 12)).astype(np.int16)
    for name, leads in LEAD_SUBSETS.items():
        assert len(leads) == int(name.split()[0])
        reduced = only_leads(ecg_uv, leads)
        assert reduced.dtype == np.int16
        for column, lead in enumerate(LEADS_12):
            expected = ecg_uv[:, :, column] if lead in leads else np.full((2, 7), MISSING_UV)
            np.testing.assert_array_equal(reduced[:, :, column], expected)
    assert (ecg_uv != MISSING_UV).all()
