"""What a suite's models do at the thresholds that validation stored, and how true their probabilities are.

An operating point belongs to one model, so of a model that was trained under several seeds the first stands for it.
Thresholds and temperature come from validation scores alone, weighted as the source is; so are all figures of the
tests. The models themselves learnt from the case-enriched sample as it is, which leaves their risks too high in the
source: the calibration intercept says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ecgclip_jax.evaluation.operating import (
    OperatingPoints,
    fit_operating_points,
    operating_rows,
    save_operating_points,
)
from ecgclip_jax.evaluation.results import ResultRow
from ecgclip_jax.evaluation.scored import ALL_LABELS, Scored
from ecgclip_jax.evaluation.scoring import SPECIFICITY, ranking_rows
from ecgclip_jax.evaluation.suites.claims import Tested
from ecgclip_jax.evaluation.suites.fitting import Fitted, Job
from ecgclip_jax.evaluation.suites.opening import OpenSet
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH

PROTOCOLS = ("linear_probe", "fine_tune")
"""Those that give logits."""
AT_SPECIFICITY = f"sensitivity_at_specificity_{SPECIFICITY:g}"


@dataclass
class Deployed:
    """Of a set: points of the run and of what it is compared with, by protocol and arm."""

    opened: OpenSet
    arms: Sequence[str]
    _points: dict[tuple[str, str], tuple[int, OperatingPoints]] = field(default_factory=dict)
    """With the number of the fit that they belong to."""

    @classmethod
    def of(cls, opened: OpenSet, twins: Sequence[str]) -> Deployed:
        """For the run, random initialisation, and its untrained twins."""
        return cls(opened, (PRETRAINED, SCRATCH, *twins))

    def learn(self, job: Job, fitted: Fitted) -> None:
        """Takes the points of a fit with all labels, unless its arm has some already.

        A probe that was kept without validation scores is solved again; a fine-tuned model is not.
        """
        key = job.protocol, job.arm.name
        if key in self._points or job.protocol not in PROTOCOLS or job.arm.name not in self.arms:
            return
        if job.draw.fraction != ALL_LABELS:
            return
        scores = fitted.validation
        if scores is None and job.protocol == "linear_probe" and np.isfinite(next(iter(fitted.scores.values()))).any():
            scores = job.fit(job.draw).validation
        if scores is not None:
            own = self.opened.validation
            found = fit_operating_points(
                [(own.labels, [Scored(job.arm, job.protocol, scores)])], weight=own.weight if own.weighted else None
            )
            self._points[key] = job.draw.repeat, found[job.arm.name]

    def rows(self, tests: Sequence[Tested]) -> list[ResultRow]:
        """Per task and macro, of every test."""
        rows: list[ResultRow] = []
        for test in tests:
            for (protocol, arm), (repeat, points) in self._points.items():
                fits = [s for s in test.scored if (s.protocol, s.arm.name, s.fraction) == (protocol, arm, ALL_LABELS)]
                chosen = [s for s in fits if s.repeat == repeat]
                rows += operating_rows(test.split, chosen, {arm: points}, protocol, macro=True)
                rows += [r for r in ranking_rows(test.split, chosen, (AT_SPECIFICITY,)) if r.label != "macro"]
        return rows

    def save(self, folder: Path) -> Path:
        """Write `operating_points-<set>.json`."""
        named = {f"{arm}, {protocol}": points for (protocol, arm), (_, points) in self._points.items()}
        return save_operating_points(named, folder, f"operating_points-{self.opened.name}.json")
