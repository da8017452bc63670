"""Linear probe: all labels and four L2 strengths in one jitted solve per label fraction, against scikit-learn.

The peer is LogisticRegression on the same standardised features and the same nested 1 %, 10 % and 100 % of the records,
one label, fraction and strength after another; it is measured on a few labels at every fraction and strength and
compared per fit. Before anything is timed the objectives must agree: ours at most 1e-4 (relative) above the peer's, or
the benchmark stops. The rotation of the features is part of our time, standardisation of neither.
"""

from __future__ import annotations

from typing import Final

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.evaluation.protocols.logistic import fit_rotation, solve

TARGET_RATIO: Final = 20
FRACTIONS: Final = (0.01, 0.1, 1.0)
INVERSE_L2: Final = (0.01, 0.1, 1.0, 10.0)
"""The published grid of the ecg-fix protocol (arXiv 2602.17531)."""
_QUICK: Final = {"records": 4_000, "labels": 35, "width": 128, "every": 12}
_FULL: Final = {"records": 17_418, "labels": 89, "width": 512, "every": 30}


def run(quick: bool) -> Report:
    """Time per logistic regression."""
    size = _QUICK if quick else _FULL
    records, labels, width = size["records"], size["labels"], size["width"]
    features, positive = _correlated_features(records, labels, width)
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / spread
    strengths = np.asarray(INVERSE_L2, np.float32)
    # Records are in random order, so that the first of them are a random part: nested fractions. A label of one class
    # among them has no optimum: neither side fits it.
    taken = [round(fraction * records) for fraction in FRACTIONS]
    defined = [np.ptp(positive[:n].astype(np.int8), axis=0) > 0 for n in taken]

    def ours() -> list[np.ndarray]:
        solved = []
        for n, both_classes in zip(taken, defined, strict=True):
            rotation, truth = fit_rotation(features[:n], spread), positive[:n]
            known = np.ones_like(truth) & both_classes
            solution = solve(
                rotation.apply(features[:n]), rotation.variance.astype(np.float32), truth, known, strengths
            )
            solved.append(np.asarray(jax.block_until_ready(solution.objective)))
        return solved

    measured = [(i, label) for i in range(len(taken)) for label in range(0, labels, size["every"]) if defined[i][label]]

    def peer() -> list[tuple[int, int, int, float]]:
        found = []
        with threadpool_limits(1):  # its small products get slower with more threads
            for i, label in measured:
                x, y = standard[: taken[i]], positive[: taken[i], label]
                for k, inverse_l2 in enumerate(INVERSE_L2):
                    fit = LogisticRegression(C=inverse_l2, max_iter=10_000).fit(x, y)
                    found.append((i, k, label, _objective(x, y, fit, inverse_l2)))
        return found

    objective = ours()
    gap = max((float(objective[i][k, label]) - theirs) / theirs for i, k, label, theirs in peer())
    if gap > 1e-4:
        raise AssertionError(f"the probe's objective is {gap:.1e} above scikit-learn's")
    n_defined = int(np.sum(defined))
    timings = measure(
        [
            Arm("ecgclip_jax, one solve per fraction", ours, n_defined * len(INVERSE_L2)),
            Arm("scikit-learn, one fit after another", peer, len(measured) * len(INVERSE_L2)),
        ],
        quick=quick,
        rounds=3,
    )
    facts = {
        "largest objective above the peer's (relative)": gap,
        "size": f"{records} records x {width} features, {labels} labels x fractions {FRACTIONS} x C {INVERSE_L2}",
        "labels x fractions with both classes": f"{n_defined} of {labels * len(taken)}",
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
