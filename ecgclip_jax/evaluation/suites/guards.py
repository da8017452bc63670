"""What a reader must be told about a suite's scores: permuted label columns, hospitals that embeddings give away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.permuted_labels import permuted_labels
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData, fit_probe
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.evaluation.scored import ALL_LABELS, Arm, Scored, TestSplit
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.suites.arrays import SplitArrays
from ecgclip_jax.evaluation.suites.opening import OpenSet
from ecgclip_jax.evaluation.suites.splits import test_split
from ecgclip_jax.spec.suites import PRETRAINED, SuiteSpec

HOSPITAL_PROBE = "hospital_probe"


def permutation_warnings(name: str, labels: Labels, scored: Sequence[Scored]) -> list[str]:
    """A warning if the run's scores with all labels fit other label columns better than their own."""
    for s in scored:
        if s.arm.name == PRETRAINED and s.fraction == ALL_LABELS and s.protocol in ("linear_probe", "fine_tune"):
            swapped = permuted_labels(labels, s.scores)
            if swapped:
                pairs = ", ".join(f"{a} fits {b}" for a, b in sorted(swapped.items()))
                return [f"{name}: label columns look permuted between training and test ({pairs})"]
    return []


def hospital_rows(
    spec: SuiteSpec, opened: OpenSet, arrays: Mapping[str, SplitArrays], arms: Sequence[Arm], access: str
) -> list[ResultRow]:
    """How well a linear probe tells the test cohorts apart by frozen features: what could carry a shortcut.

    Half of the test patients learn (a quarter of them chooses the strength), the other half is scored; none if there
    is one cohort only.
    """
    names = tuple(test.name for test in opened.tests)
    if len(names) < 2:
        return []
    hospital = np.concatenate([np.full(test.n_records, i) for i, test in enumerate(opened.tests)])
    patient = _joined(opened)
    half = np.random.default_rng(0).permutation(int(patient.max()) + 1)[patient] % 8
    positive = hospital[:, None] == np.arange(len(names))
    known = np.ones_like(positive)
    learn, choose, score = half < 3, half == 3, half > 3
    scored = []
    for arm in arms:
        features = np.concatenate([arrays[name].models[arm.name].features for name in names])
        train, validation = (ProbeData(features[rows], positive[rows], known[rows]) for rows in (learn, choose))
        scored.append(Scored(arm, HOSPITAL_PROBE, fit_probe(train, validation).scores(features[score])))
    _, own = np.unique(patient[score], return_inverse=True)
    base = test_split(spec, opened.tests[0], access)
    split = TestSplit(
        labels=Labels(names, positive[score], known[score]),
        groups=dict.fromkeys(names, "hospital"),
        patient=own,
        common=dict(base.common) | {"split": "all tests", "label_source": "hospital"},
        min_positives=1,
        macro_min_labels=2,
        replicates=base.replicates,
        seed=base.seed,
        label_sources=dict.fromkeys(names, "hospital"),
    )
    return ranking_rows(split, scored, ("auroc",))


def _joined(opened: OpenSet) -> np.ndarray:
    """Patient numbers over all tests."""
    offset, found = 0, []
    for test in opened.tests:
        found.append(test.patient + offset)
        offset += int(test.patient.max()) + 1
    return np.concatenate(found)
