"""Claims named before any figure was seen: each comparison with its interval, its test and its verdict.

A superiority claim is tested by paired permutation of patients, the difference averaged over the repeats, and all tests
of a suite's superiority claims are corrected together (Holm). A non-inferiority claim is judged by the interval of the
difference over patients and training seeds against its margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ecgclip_jax.evaluation.paired_test import paired_test
from ecgclip_jax.evaluation.results import Exclusion, without_nan, write_json
from ecgclip_jax.evaluation.scored import Scored, TestSplit, class_counts
from ecgclip_jax.evaluation.scoring import METRICS, interval_columns, left_out, macro_estimate, measure
from ecgclip_jax.metrics.intervals import Interval
from ecgclip_jax.metrics.multiple_testing import holm
from ecgclip_jax.metrics.non_inferiority import non_inferiority
from ecgclip_jax.metrics.ranking import RANKING_METRICS
from ecgclip_jax.spec.suites import Claim

FILE = "claims.json"


@dataclass(frozen=True)
class Finding:
    """A claim on one test cohort."""

    claim: str
    cohort: str
    first: float = math.nan
    """Macro mean of the first arm, over its repeats."""
    second: float = math.nan
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    p: float = math.nan
    """Of the permutation test; NaN for non-inferiority."""
    p_holm: float = math.nan
    holds: bool = False
    n_labels: int = 0
    n_repeats: int = 0
    n_patients: int = 0
    reason: str = ""
    """Why there is no figure; empty if there is one."""


@dataclass(frozen=True)
class Verdict:
    """A claim over all its cohorts."""

    claim: Claim
    internal: str
    """The cohort on which it has to hold in any case."""
    findings: tuple[Finding, ...]

    @property
    def n_holding(self) -> int:
        """Cohorts on which it holds."""
        return sum(finding.holds for finding in self.findings)

    @property
    def holds(self) -> bool:
        """Inside, and on as many cohorts as it has to."""
        inside = any(f.holds for f in self.findings if f.cohort == self.internal)
        return inside and self.n_holding >= self.claim.at_least


@dataclass(frozen=True)
class Tested:
    """A test cohort with everything that was scored on it."""

    name: str
    split: TestSplit
    scored: Sequence[Scored]


def judge(claims: Sequence[Claim], internal: str, tests: Sequence[Tested], permutations: int) -> list[Verdict]:
    """Verdicts in the order of the claims; p values of all superiority tests are corrected together."""
    found: dict[str, list[Finding]] = {}
    for claim in claims:
        chosen = [t for t in tests if claim.on == "each" or t.name == internal]
        found[claim.name] = [_finding(claim, test, permutations) for test in chosen]
    superiority = [(c, i) for c in claims if c.kind == "superior" for i in range(len(found[c.name]))]
    adjusted = holm(np.array([found[claim.name][i].p for claim, i in superiority]))
    for (claim, i), p in zip(superiority, adjusted, strict=True):
        own = found[claim.name][i]
        found[claim.name][i] = replace(own, p_holm=float(p), holds=bool(own.difference > 0 and p < claim.alpha))
    return [Verdict(claim, internal, tuple(found[claim.name])) for claim in claims]


def _finding(claim: Claim, test: Tested, permutations: int) -> Finding:
    first, second = (
        [s for s in test.scored if (s.protocol, s.arm.name, s.fraction) == (claim.protocol, arm, fraction)]
        for arm, fraction in ((claim.first, claim.first_fraction), (claim.second, claim.second_fraction))
    )
    first, second = _repeats(first, second)
    nothing = Finding(claim.name, test.name, n_repeats=len(first), n_patients=test.split.n_patients)
    if not first:
        return replace(nothing, reason="an arm of the claim was not fitted")
    excluded = left_out(test.split, [*first, *second])
    names = test.split.labels.concepts
    kept = [i for i, n in enumerate(names) if n not in excluded and test.split.label_source(n) == claim.label_source]
    if len(kept) < test.split.macro_min_labels:
        return replace(nothing, n_labels=len(kept), reason=str(Exclusion.FEW_LABELS))
    measured = [measure(test.split, own)[0] for own in (first, second)]
    index = [m.name for m in METRICS].index(claim.metric)
    means = [macro_estimate(m, kept, index)[0] for m in measured]
    if not all(np.isfinite(mean.values).all() for mean in means):
        return replace(nothing, n_labels=len(kept), reason=str(Exclusion.SCORES_NOT_FINITE))
    counts = class_counts(test.split)
    n_fewer = int(np.median([counts[i].n_fewer for i in kept]))
    nearest = float(np.median([counts[i].nearest for i in kept]))
    columns = interval_columns(METRICS[index], means, n_fewer, nearest)
    interval = Interval(columns["ci_low"], columns["ci_high"], columns["discarded_draws"])
    values = [float(mean.values.mean()) for mean in means]
    finding = replace(
        nothing,
        first=values[0],
        second=values[1],
        difference=values[0] - values[1],
        ci_low=interval.low,
        ci_high=interval.high,
        n_labels=len(kept),
    )
    if claim.kind == "non_inferior":
        return replace(finding, holds=non_inferiority(finding.difference, interval, claim.margin).holds)
    return replace(finding, p=_p_value(claim, test.split, first, second, kept, permutations))


def _repeats(first: list[Scored], second: list[Scored]) -> tuple[list[Scored], list[Scored]]:
    """Equally many of both, by their numbers; unpaired ones would compare different draws."""
    numbers = sorted({s.repeat for s in first} & {s.repeat for s in second})
    return tuple([next(s for s in own if s.repeat == n) for n in numbers] for own in (first, second))  # type: ignore[return-value]


def _p_value(
    claim: Claim,
    split: TestSplit,
    first: Sequence[Scored],
    second: Sequence[Scored],
    kept: Sequence[int],
    permutations: int,
) -> float:
    """Two-sided, of the mean over the claim's labels and repeats."""
    test = paired_test(split, first, second, np.array(kept), permutations)
    return float(test.macro_p(np.arange(len(kept)))[RANKING_METRICS.index(claim.metric)])


def save_verdicts(verdicts: Sequence[Verdict], folder: Path) -> Path:
    """Write `claims.json`: what was claimed, what was found, and whether it holds."""
    content = [
        {
            **verdict.claim.model_dump(mode="json"),
            "holds": verdict.holds,
            "cohorts_holding": verdict.n_holding,
            "findings": [without_nan(asdict(finding)) for finding in verdict.findings],
        }
        for verdict in verdicts
    ]
    return write_json(folder / FILE, content)
