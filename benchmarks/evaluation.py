"""Evaluation by stage: the patient bootstrap against a scikit-learn loop, zero-shot scores and retrieval by themselves.

Bootstrap: AUROC and average precision of every label under the same patient draws. The peer loops over draws and
labels, repeating records by index; it is measured on one draw and compared per draw and label. Before anything is timed
both are compared on the same draws, ties included: equal to 1e-9, or the benchmark stops. `benchmarks.linear_probe`
measures the remaining stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.evaluation.protocols.retrieval import ecg_to_text, text_to_ecg
from ecgclip_jax.evaluation.protocols.zero_shot import zero_shot_scores
from ecgclip_jax.metrics.resampling import bootstrap_ranking, patient_draws, sort_columns

TARGET_RATIO: Final = 200
_QUICK: Final = {"records": 8_000, "labels": 35, "replicates": 1_000, "width": 128}
_FULL: Final = {"records": 100_000, "labels": 89, "replicates": 1_000, "width": 512}


def run(quick: bool) -> Report:
    """Sorting, drawing and weighing, per draw and label; the other stages among the facts."""
    size = _QUICK if quick else _FULL
    rng = np.random.default_rng(0)
    records, labels, replicates = size["records"], size["labels"], size["replicates"]
    patients = records // 2
    patient = rng.integers(0, patients, records)
    positive = rng.random((records, labels)) < 0.05
    # Rounded, so that a good part of the scores are tied.
    scores = np.round(rng.normal(size=(records, labels)) + positive, 3).astype(np.float32)
    known = np.ones_like(positive)

    def ours(n_draws: int = replicates) -> np.ndarray:
        columns = sort_columns(positive, known, scores, patient)
        return bootstrap_ranking(columns, patients, replicates=n_draws, seed=0)

    def peer(n_draws: int, n_labels: int) -> np.ndarray:
        counts = next(iter(patient_draws(patients, n_draws, 0)))
        values = np.empty((n_labels, 2, n_draws))
        for draw in range(n_draws):
            rows = np.repeat(np.arange(records), counts[patient, draw])
            for label in range(n_labels):
                drawn = positive[rows, label], scores[rows, label]
                values[label, :, draw] = roc_auc_score(*drawn), average_precision_score(*drawn)
        return values

    n_labels = labels if quick else 10
    difference = float(np.abs(ours(2)[:n_labels, :2] - peer(2, n_labels)).max())
    if difference > 1e-9:
        raise AssertionError(f"bootstrap differs from scikit-learn by {difference:.1e}")
    timings = measure(
        [
            Arm("ecgclip_jax, sorting included", ours, replicates * labels),
            Arm("scikit-learn loop", lambda: peer(1, n_labels), n_labels),
        ],
        quick=quick,
        rounds=3,
    )
    facts = {
        "largest difference": difference,
        "size": f"{records} records x {labels} labels x {replicates} draws",
        "scikit-learn, extrapolated to all draws (s)": round(timings[1].median_s * replicates * labels),
        "ours, all draws (s)": round(timings[0].median_s * replicates * labels, 3),
        **_other_stages(size),
    }
    notes = (f"target: {TARGET_RATIO} times the peer at 100,000 records x 89 labels (the full form)",)
    return Report("patient bootstrap", "draw x label", timings, notes, facts)


def _other_stages(size: dict[str, int]) -> dict[str, object]:
    """Seconds for zero-shot scores of all records, and for retrieval among 2,000 of them, embeddings given."""
    rng = np.random.default_rng(2)
    ecg = rng.normal(size=(size["records"], size["width"])).astype(np.float32)
    vectors = rng.normal(size=(size["labels"], size["width"])).astype(np.float32)
    texts, own_text = rng.normal(size=(1_500, size["width"])).astype(np.float32), np.arange(2_000) % 1_500
    stages: dict[str, Callable[[], object]] = {
        "zero-shot scores of all records (s)": lambda: zero_shot_scores(ecg, vectors),
        "retrieval both ways, 2,000 ECGs, 1,500 reports (s)": lambda: (
            ecg_to_text(ecg[:2_000], texts, own_text),
            text_to_ecg(ecg[:2_000], texts, own_text),
        ),
    }
    seconds: dict[str, object] = {}
    for name, stage in stages.items():
        stage()
        started = time.perf_counter()
        stage()
        seconds[name] = round(time.perf_counter() - started, 4)
    return seconds


if __name__ == "__main__":
    main(run, __doc__)
