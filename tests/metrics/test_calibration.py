"""Calibration figures against scikit-learn, scipy's optimiser and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from ecgclip_jax.metrics import calibration
from ecgclip_jax.metrics.resampling import bootstrap_sums, patient_draws


def _case(seed: int = 0, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are too extreme by 1.6 and too high by 0.7, labels, and sampling weights."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n) - 1
    return 1.6 * truth + 0.7, rng.random(n) < expit(truth), rng.uniform(0.2, 4, n)


@pytest.mark.parametrize("weighted", [False, True])
def test_brier_and_recalibration_equal_scikit_learn(weighted: bool) -> None:
    logit, positive, weight = _case()
    weight = weight if weighted else None
    assert calibration.brier(expit(logit), positive, weight) == pytest.approx(
        brier_score_loss(positive, expit(logit), sample_weight=weight), abs=1e-12
    )
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], positive, sample_weight=weight)
    fit = calibration.fit_recalibration(logit, positive, weight)
    assert fit.slope == pytest.approx(peer.coef_[0, 0], abs=1e-5)
    assert fit.intercept == pytest.approx(peer.intercept_[0], abs=1e-5)

    def loss(intercept: float) -> float:
        return log_loss(positive, expit(logit + intercept), sample_weight=weight)

    found = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x
    assert calibration.calibration_intercept(logit, positive, weight) == pytest.approx(found, abs=1e-5)


def test_the_fit_undoes_what_made_the_predictions_wrong() -> None:
    logit, positive, _ = _case(1, 40_000)
    fit = calibration.fit_recalibration(logit, positive)
    assert fit.slope == pytest.approx(1 / 1.6, abs=0.03)
    again = calibration.fit_recalibration(fit.apply(logit), positive)
    assert again == pytest.approx((0.0, 1.0), abs=1e-8)
    assert calibration.calibration_intercept(fit.apply(logit), positive) == pytest.approx(0.0, abs=1e-8)


def test_no_finite_optimum_is_undefined() -> None:
    logit = np.linspace(-2, 2, 40)
    assert all(map(math.isnan, calibration.fit_recalibration(logit, logit > 0.03)))
    assert all(map(math.isnan, calibration.fit_recalibration(logit, np.zeros(40, bool))))
    assert all(map(math.isnan, calibration.fit_recalibration(np.zeros(40), logit > 0)))
    assert math.isnan(calibration.calibration_intercept(logit, np.ones(40, bool)))
    undefined = logit * math.nan  # over a temperature that validation could not define
    assert math.isnan(calibration.calibration_intercept(undefined, np.arange(40) < 9))
    assert math.isnan(calibration.fit_recalibration(undefined, np.arange(40) < 9).slope)
    known = np.ones((40, 1), bool)
    assert math.isnan(calibration.fit_temperature(logit[:, None], (logit < 0)[:, None], known))


def test_temperature_is_the_one_of_lowest_log_loss_over_known_labels() -> None:
    rng = np.random.default_rng(2)
    logits = 3 * rng.normal(size=(200, 3))
    positive, known = rng.random((200, 3)) < expit(logits / 2.2), rng.random((200, 3)) < 0.7
    weight = rng.uniform(0.5, 2, 200)
    rows = np.broadcast_to(weight[:, None], known.shape)[known]

    def loss(temperature: np.ndarray) -> float:
        return log_loss(positive[known], expit(logits[known] / temperature[0]), sample_weight=rows)

    found = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14}).x[0]
    assert calibration.fit_temperature(logits, positive, known, weight) == pytest.approx(found, abs=1e-5)


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    positive = np.array([False, True, False, True, True])
    # Bins [0, 0.5) and [0.5, 1]: |0.4 - 1| and |2.1 - 2|.
    edges = np.array([0.5])
    assert calibration.expected_calibration_error(probability, positive, edges) == pytest.approx((0.6 + 0.1) / 5)
    weight = np.array([1.0, 2, 1, 1, 3])
    # |0.1 + 0.6 - 2| and |0.5 + 0.7 + 2.7 - 4|
    found = calibration.expected_calibration_error(probability, positive, edges, weight)
    assert found == pytest.approx((1.3 + 0.1) / 8)
    edges = calibration.equal_mass_edges(np.arange(100) / 100, 4)
    assert np.bincount(np.searchsorted(edges, np.arange(100) / 100, side="right")).tolist() == [25] * 4
    assert len(calibration.equal_mass_edges(np.zeros(9), 10)) == 1


def test_draws_of_sums_equal_figures_of_repeated_records() -> None:
    logit, positive, weight = _case(3, 400)
    patient = np.repeat(np.arange(200), 2)
    edges = calibration.equal_mass_edges(expit(logit), 5)
    fit = calibration.fit_recalibration(logit, positive, weight)
    intercept = calibration.calibration_intercept(logit, positive, weight)
    terms = [
        calibration.brier_terms(expit(logit), positive, weight),
        calibration.bin_terms(expit(logit), positive, edges, weight),
        calibration.newton_terms(logit, positive, fit, intercept, weight),
    ]
    squares, bins, newton = bootstrap_sums([lambda t=t: t for t in terms], patient, 200, replicates=40, seed=5)
    slopes, intercepts = calibration.newton_draws(fit.slope, intercept, newton)
    (counts,) = patient_draws(200, 40, 5)
    refits = []
    for draw in range(40):
        rows = np.repeat(np.arange(400), counts[patient, draw])
        drawn = logit[rows], positive[rows], weight[rows]
        probability = expit(drawn[0])
        assert squares[0, draw] / squares[1, draw] == pytest.approx(calibration.brier(probability, *drawn[1:]))
        error = calibration.expected_calibration_error(probability, drawn[1], edges, drawn[2])
        assert calibration.calibration_error(bins)[draw] == pytest.approx(error)
        refits.append((calibration.fit_recalibration(*drawn).slope, calibration.calibration_intercept(*drawn)))
    for step, refit in zip((slopes, intercepts), np.array(refits).T, strict=True):
        assert np.corrcoef(step, refit)[0, 1] > 0.99
        assert np.abs(step - refit).max() < 0.25 * np.ptp(refit)
        assert np.std(step) == pytest.approx(np.std(refit), rel=0.1)
