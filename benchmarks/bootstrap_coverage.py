"""How often bootstrap intervals hold the truth when positives are few: percentile, and as results are reported.

Worlds of 1,000 patients with normal scores, positives moved by d. AUROC and average precision of the population are
known (d = 1: AUROC 0.76, d = 3: 0.98). Per world: one label's figures, the paired difference from a weaker model on the
same patients, and the macro mean of ten labels. A claim holds if the reported interval covers at least 0.90 of the
worlds everywhere, and if it is closer to its nominal 0.95 on the whole than the percentile interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from benchmarks.common import environment
from ecgclip_jax.metrics.intervals import Interval, corrected_interval, difference_interval, percentile_interval
from ecgclip_jax.metrics.ranking import sort_column, weighted_metrics
from ecgclip_jax.metrics.resampling import bootstrap_ranking

PATIENTS: Final = 1_000
POSITIVES: Final = (10, 20, 50)
SHIFTS: Final = (1.0, 2.0, 3.0)
WEAKER: Final = 0.7
"""By how much the second model's positives are moved less."""
MACRO_SHIFTS: Final = tuple(np.linspace(1.0, 3.0, 10))
WORLDS, DRAWS = 400, 500
NOMINAL, LEAST = 0.95, 0.90


class Case(NamedTuple):
    """What an interval is asked for."""

    figure: str
    positives: int
    shift: float


class Hit(NamedTuple):
    """Whether the two intervals of one world hold the truth, and how wide they are."""

    percentile: bool
    reported: bool
    percentile_width: float
    reported_width: float


@cache
def truths(shift: float, prevalence: float) -> tuple[float, float]:
    """AUROC and average precision of the population: normal scores, positives moved by `shift`."""
    score = np.linspace(-9.0, 9.0 + shift, 40_001)
    recall, false_alarms = norm.sf(score - shift), norm.sf(score)
    precision = prevalence * recall / (prevalence * recall + (1 - prevalence) * false_alarms)
    return float(norm.cdf(shift / np.sqrt(2))), float(np.sum((precision[1:] + precision[:-1]) / 2 * -np.diff(recall)))


def simulate(positives: int, shifts: Sequence[float], worlds: int, draws: int) -> dict[Case, list[Hit]]:
    """Both intervals in each world, for single labels, differences and, with several shifts, the macro mean."""
    prevalence = positives / PATIENTS
    found: dict[Case, list[Hit]] = defaultdict(list)
    for world in range(worlds):
        rng = np.random.default_rng([world, positives])
        values, sampled, n_positives = _world(rng, shifts, prevalence, draws, world)
        for case, truth, levels, n in _figures(shifts, positives, values, sampled, n_positives):
            nearest = 0.5 / (n * (PATIENTS - n))
            if len(levels) == 1:
                percentile = percentile_interval(levels[0][1])
                reported = corrected_interval(*levels[0], n, nearest=nearest)
            else:
                percentile = percentile_interval(levels[0][1] - levels[1][1])
                reported = difference_interval(levels[0], levels[1], n, nearest=nearest)
            found[case].append(
                Hit(_holds(percentile, truth), _holds(reported, truth), _width(percentile), _width(reported))
            )
    return found


def _world(
    rng: np.random.Generator, shifts: Sequence[float], prevalence: float, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Values `[label, model, metric]`, draws `[label, model, metric, draw]` and positives per label of one world."""
    columns, n_positives = [], []
    common = rng.normal(size=PATIENTS)
    for shift in shifts:
        positive = rng.random(PATIENTS) < prevalence
        positive[:2] |= positive.sum() < 2  # two positives at least, or nothing is defined
        noise = 0.5 * common + np.sqrt(0.75) * rng.normal(size=PATIENTS)
        weaker = 0.6 * noise + 0.8 * rng.normal(size=PATIENTS) + (shift - WEAKER) * positive
        columns += [sort_column(positive, noise + shift * positive), sort_column(positive, weaker)]
        n_positives.append(int(positive.sum()))
    one = np.ones((PATIENTS, 1), np.uint8)
    values = np.array([weighted_metrics(column, one)[:2, 0] for column in columns])
    sampled = bootstrap_ranking(columns, PATIENTS, replicates=draws, seed=seed)[:, :2]
    shape = (len(shifts), 2, 2)
    return values.reshape(shape), sampled.reshape(*shape, draws), n_positives


def _figures(
    shifts: Sequence[float], positives: int, values: np.ndarray, sampled: np.ndarray, n_positives: list[int]
) -> Iterator[tuple[Case, float, list[tuple[float, np.ndarray]], int]]:
    """Case, truth, (value, draws) of the model or of both that differ, and positives, of every figure of one world."""
    truth = np.array([[truths(s, positives / PATIENTS) for s in (d, d - WEAKER)] for d in shifts]).mean(axis=0)
    shift, n, macro = float(np.mean(shifts)), int(np.median(n_positives)), "macro " * (len(shifts) > 1)
    for metric, name in enumerate(("AUROC", "AP")):
        first, second = (
            (float(values[:, model, metric].mean()), sampled[:, model, metric].mean(axis=0)) for model in (0, 1)
        )
        yield Case(f"{macro}{name}", positives, shift), truth[0, metric], [first], n
        difference = truth[0, metric] - truth[1, metric]
        yield Case(f"{macro}{name} difference", positives, shift), difference, [first, second], n


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _width(interval: Interval) -> float:
    return interval.high - interval.low


def bootstrap_coverage(folder: Path, console: Console) -> bool:
    """How often 95 % bootstrap intervals hold the truth with 10, 20 and 50 positives, percentile and reported."""
    found: dict[Case, list[Hit]] = {}
    for positives in POSITIVES:
        for shift in SHIFTS:
            found |= simulate(positives, (shift,), WORLDS, DRAWS)
        found |= simulate(positives, MACRO_SHIFTS, WORLDS, DRAWS)
    title = f"coverage of 95 % intervals, {WORLDS} worlds, {environment()['commit']}"
    table = Table("figure", "positives", "d", "percentile", "width", "reported", "width", title=title)
    shares = []
    for case in sorted(found):
        percentile, reported, *widths = (float(np.mean(part)) for part in zip(*found[case], strict=True))
        shares.append((percentile, reported))
        cells = f"{percentile:.3f}", f"{widths[0]:.3f}", f"{reported:.3f}", f"{widths[1]:.3f}"
        table.add_row(case.figure, str(case.positives), f"{case.shift:.1f}", *cells)
    console.print(table)
    by_percentile, as_reported = np.array(shares).T
    far = [float(np.abs(column - NOMINAL).mean()) for column in (by_percentile, as_reported)]
    console.print(f"mean distance from {NOMINAL}: percentile {far[0]:.3f}, reported {far[1]:.3f}")
    console.print(f"lowest coverage: percentile {by_percentile.min():.3f}, reported {as_reported.min():.3f}")
    return bool(as_reported.min() >= LEAST and far[1] < far[0])
