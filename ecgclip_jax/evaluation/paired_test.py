"""Paired permutation test of two models that were fitted several times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ecgclip_jax.evaluation.scored import Scored, TestSplit
from ecgclip_jax.metrics.permutation import PermutationTest, paired_permutation


def paired_test(
    split: TestSplit,
    first: Sequence[Scored],
    second: Sequence[Scored],
    labels: Int[np.ndarray, "chosen"],
    permutations: int,
) -> PermutationTest:
    """Differences of the chosen labels, averaged over the repeats.

    The coins are the same in every repeat, so the mean over repeats is permuted as one figure.
    """
    tests = [
        paired_permutation(
            split.labels.positive[:, labels],
            split.labels.known[:, labels],
            a.scores[:, labels],
            b.scores[:, labels],
            split.patient,
            permutations=permutations,
            seed=split.seed,
            sampling=split.sampling,
        )
        for a, b in zip(first, second, strict=True)
    ]
    return PermutationTest(
        np.mean([test.observed for test in tests], axis=0), np.mean([test.permuted for test in tests], axis=0)
    )
