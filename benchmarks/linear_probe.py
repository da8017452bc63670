"""Linear probe: all labels at all L2 strengths in one jitted solve, against scikit-learn's LogisticRegression.

The peer fits the same standardised features, one label and strength after another; it is measured on a few labels at
every strength and compared per fit. Before anything is timed the objectives must agree: ours at most 1e-4 (relative)
above the peer's, or the benchmark stops. The rotation of the features is part of our time, standardisation of neither.
"""

from __future__ import annotations

from typing import Final

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.evaluation.protocols.linear_probe import INVERSE_L2_GRID
from ecgclip_jax.evaluation.protocols.logistic import fit_rotation, solve

TARGET_RATIO: Final = 20
_QUICK: Final = {"records": 4_000, "labels": 35, "width": 128, "every": 20}
_FULL: Final = {"records": 17_418, "labels": 89, "width": 512, "every": 30}


def run(quick: bool) -> Report:
    """Time per logistic regression."""
    size = _QUICK if quick else _FULL
    records, labels, width = size["records"], size["labels"], size["width"]
    features, positive = _correlated_features(records, labels, width)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    known, strengths = np.ones_like(positive), np.asarray(INVERSE_L2_GRID, np.float32)

    def ours() -> np.ndarray:
        rotation = fit_rotation(features)
        solution = solve(rotation.apply(features), rotation.variance.astype(np.float32), positive, known, strengths)
        return np.asarray(jax.block_until_ready(solution.objective))

    measured_labels = range(10, labels, size["every"])

    def peer() -> list[tuple[int, int, float]]:
        found = []
        with threadpool_limits(1):  # its small products get slower with more threads
            for label in measured_labels:
                for k, inverse_l2 in enumerate(INVERSE_L2_GRID):
                    fit = LogisticRegression(C=inverse_l2, max_iter=10_000).fit(standard, positive[:, label])
                    found.append((k, label, _objective(standard, positive[:, label], fit, inverse_l2)))
        return found

    objective = ours()
    gap = max((float(objective[k, label]) - theirs) / theirs for k, label, theirs in peer())
    if gap > 1e-4:
        raise AssertionError(f"the probe's objective is {gap:.1e} above scikit-learn's")
    timings = measure(
        [
            Arm("ecgclip_jax, one solve", ours, labels * len(INVERSE_L2_GRID)),
            Arm("scikit-learn, one fit after another", peer, len(measured_labels) * len(INVERSE_L2_GRID)),
        ],
        quick=quick,
        rounds=3,
    )
    facts = {
        "largest objective above the peer's (relative)": gap,
        "size": f"{records} records x {width} features, {labels} labels x {len(INVERSE_L2_GRID)} strengths",
    }
    return Report("linear probe", "fit", timings, (f"target: {TARGET_RATIO} times the peer",), facts)


def _correlated_features(records: int, labels: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features as a trunk gives them: a few strong directions, many weak ones; labels from common to rare."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -1, width)[:, None]
    features = (rng.normal(size=(records, width)) @ mixing + rng.normal(size=width)).astype(np.float32)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    logits = standard @ (rng.normal(size=(width, labels)) * 2 / np.sqrt(width)) + rng.logistic(size=(records, labels))
    return features, logits > np.linspace(0, 5, labels)


def _objective(features: np.ndarray, positive: np.ndarray, fit: LogisticRegression, inverse_l2: float) -> float:
    logits = features.astype(np.float64) @ fit.coef_[0] + fit.intercept_[0]
    penalty = fit.coef_[0] @ fit.coef_[0] / (2 * inverse_l2 * len(positive))
    return float(np.mean(np.logaddexp(0, logits) - positive * logits) + penalty)


if __name__ == "__main__":
    main(run, __doc__)
