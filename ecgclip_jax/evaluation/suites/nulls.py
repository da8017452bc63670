"""Null worlds: where a claim has to fail, whether it did as was predicted, by intervals and never by a look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ecgclip_jax.evaluation.results import ResultRow, without_nan, write_json
from ecgclip_jax.evaluation.scored import ALL_LABELS
from ecgclip_jax.spec.suites import NullWorld, TestCohort

FILE = "null_worlds.json"
CHANCE = 0.5
"""Of an AUROC, which is what is looked at."""


@dataclass(frozen=True)
class NullFinding:
    """A null world at one test cohort."""

    cohort: str
    value: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    holds: bool = False
    """It came out as predicted."""
    n: int | None = None
    n_labels: int | None = None
    """Labels in the mean; None for a single task."""
    reason: str = ""
    """Why there is no figure; empty if there is one."""


@dataclass(frozen=True)
class NullVerdict:
    """A null world over all its test cohorts."""

    world: NullWorld
    findings: tuple[NullFinding, ...]

    @property
    def n_holding(self) -> int:
        """Tests at which it came out as predicted."""
        return sum(finding.holds for finding in self.findings)

    @property
    def holds(self) -> bool:
        """Inside, and at as many tests as it has to."""
        internal = self.world.cohorts.internal.name
        inside = any(f.holds for f in self.findings if f.cohort == internal)
        return inside and self.n_holding >= self.world.at_least


def judge_nulls(worlds: Sequence[NullWorld], rows: Sequence[ResultRow], headline: str) -> list[NullVerdict]:
    """Verdicts from a suite's rows, in the order of the worlds; zero-shot is read under the `headline` prompts."""
    return [NullVerdict(world, tuple(_findings(world, rows, headline))) for world in worlds]


def _findings(world: NullWorld, rows: Sequence[ResultRow], headline: str) -> Iterator[NullFinding]:
    inside = _row(world, world.cohorts.internal, rows, headline)
    for test in world.cohorts.tests:
        row = _row(world, test, rows, headline)
        if row is None:
            yield NullFinding(test.name, reason="not evaluated")
            continue
        figures = (row.value, row.ci_low, row.ci_high)
        if not all(map(math.isfinite, figures)):
            yield NullFinding(test.name, n=row.n, n_labels=row.n_labels, reason=row.excluded or "no interval")
            continue
        yield NullFinding(test.name, *figures, _as_predicted(world, row, inside), row.n, row.n_labels)


def _row(world: NullWorld, test: TestCohort, rows: Sequence[ResultRow], headline: str) -> ResultRow | None:
    place = ({source.cohort for source in test.sources}, test.name)
    what = (world.model, world.protocol, world.label, world.label_source)
    found = (
        row
        for row in rows
        if row.metric == "auroc" and not row.compared_with and row.label_fraction == ALL_LABELS
        if not row.subgroup and not row.axis
        if row.split == place[1] and row.cohort in place[0] and row.prompt_set in ("", headline)
        if (row.model, row.protocol, row.label, row.label_group) == what
    )
    return next(found, None)


def _as_predicted(world: NullWorld, row: ResultRow, inside: ResultRow | None) -> bool:
    """By the whole interval; without a figure inside nothing can be said of the outside."""
    if world.expected == "vanishes":
        return CHANCE - world.margin <= row.ci_low and row.ci_high <= CHANCE + world.margin
    if inside is None or math.isnan(inside.ci_low):
        return False
    if row is inside:
        return row.ci_low > CHANCE + world.margin
    return row.ci_high < inside.ci_low - world.margin


def save_null_verdicts(verdicts: Sequence[NullVerdict], folder: Path) -> Path:
    """Write `null_worlds.json`: what was predicted, what was found, and whether it came out so."""
    content = [
        {
            **verdict.world.model_dump(mode="json", exclude={"cohorts"}),
            "cohorts": verdict.world.cohorts.name,
            "holds": verdict.holds,
            "cohorts_holding": verdict.n_holding,
            "findings": [without_nan(asdict(finding)) for finding in verdict.findings],
        }
        for verdict in verdicts
    ]
    return write_json(folder / FILE, content)
