"""What published code does and this project does not believe in: done apart, after all fits, named as what it is."""

from __future__ import annotations

from typing import Final

import numpy as np

from ecgclip_jax.evaluation.protocols.gradient_probe import mean_auroc
from ecgclip_jax.evaluation.protocols.linear_probe import ProbeData
from ecgclip_jax.evaluation.scored import Scored
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job
from ecgclip_jax.evaluation.suites.opening import SuiteSplit

BEST_TEST_EPOCH: Final = "linear_probe_best_test_epoch"


def best_test_epoch(job: Job, fitted: Fitted, test: SuiteSplit) -> list[Scored]:
    """The probe at the epoch whose mean AUROC on the test is highest: the maximum over test epochs that MERL prints.

    Test labels reach no fit and no other row; these rows are biased upwards, and their note says so. None for a probe
    without a trajectory.
    """
    path, features = fitted.trajectory, job.features
    if path is None or features is None:
        return []
    own = features[test.name]
    truth = ProbeData(own, test.labels.positive, test.labels.known)
    merit = [mean_auroc(truth, path.scores(own, epoch)) for epoch in range(len(path.weight))]
    best = int(np.argmax(merit))
    note = f"AS RELEASED: epoch {best + 1} chosen on the test labels themselves"
    chosen = Fitted({test.name: path.scores(own, best)}, note)
    return [chosen.scored(job.arm, BEST_TEST_EPOCH, job.draw, test)]
