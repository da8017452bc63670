"""Intervals from bootstrap draws, chosen by how often they hold the truth when positives are few.

With few positives a bootstrap draw repeats some of them, and repeated positives raise average precision: draws lean
upwards. A percentile interval keeps that lean, twice over (once for the draws, once for the sample itself), so that the
one of a macro mean, where leans add up and spreads average out, misses the truth up to one time in four. Near an AUROC
of 1 it is far too narrow. `corrected_interval` takes away the lean, works on the logit scale and widens by Student's t;
`difference_interval` does so for two models. `make proofs bootstrap_coverage` measures both (BUILD_NOTES.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit, stdtrit

Scale = Literal["share", "positive", "any"]
_DIRECTIONS: Final = 721


@dataclass(frozen=True)
class Interval:
    """An interval from bootstrap draws; `discarded` is the share of draws that were undefined."""

    low: float
    high: float
    discarded: float


def percentile_interval(draws: Float[np.ndarray, "draws"], level: float = 0.95) -> Interval:
    """The central `level` percentile interval of the defined draws, and the share of undefined ones."""
    defined = draws[np.isfinite(draws)]
    discarded = 1.0 - len(defined) / len(draws)
    if not len(defined):
        return Interval(np.nan, np.nan, discarded)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), discarded)


def corrected_interval(
    value: float,
    draws: Float[np.ndarray, "draws"],
    n_fewer: int,
    *,
    scale: Scale = "share",
    nearest: float = 1e-4,
    level: float = 0.95,
) -> Interval:
    """Normal interval around the value less the draws' lean, widened by Student's t for few patients of a class.

    Half the width is the draws' standard deviation times √(n / (n - 1)) times the quantile of Student's t with n - 1
    degrees of freedom, n = `n_fewer` (as Hesterberg, Am Stat 2015;69:371, has it for a mean; ours: n counts the rarer
    class, as its members carry most of the spread). An interval always holds its value. A share that is 0 or 1 in all
    draws gets the exact binomial interval of `n_fewer` trials, since no draw can show what was never seen.

    Args:
        value: the figure itself.
        draws: the same figure under each bootstrap draw; undefined ones are left out.
        n_fewer: patients of the rarer class; of a macro mean the median label's. Below two it counts as two.
        scale: `share`: between 0 and 1 (AUROC, average precision, PPV …), made on the logit scale; `positive`: above 0
            (lift, alerts), on the log scale; `any`: as it is.
        nearest: how close to 0 or 1 a share may come on the logit scale, or how close to 0 a positive figure on the log
            scale: half a (positive, negative) pair, say.
        level: of confidence.
    """
    defined = draws[np.isfinite(draws)]
    discarded = 1.0 - len(defined) / len(draws)
    if not len(defined) or not np.isfinite(value):
        return Interval(np.nan, np.nan, discarded)
    n = max(n_fewer, 2)
    if scale == "share" and value in (0.0, 1.0) and (defined == value).all():
        unseen = 1 - ((1 - level) / 2) ** (1 / n)
        return Interval(max(value - unseen, 0.0), min(value + unseen, 1.0), discarded)
    scaled = _scaled(np.append(defined, value), scale, nearest)
    half = float(np.std(scaled[:-1])) * _reach(n, level)
    centre = 2 * scaled[-1] - scaled[:-1].mean()
    low, high = _back(np.array([centre - half, centre + half]), scale)
    return Interval(min(float(low), value), max(float(high), value), discarded)


def _reach(n: int, level: float) -> float:
    """Standard deviations to either side."""
    return float(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + level) / 2))


def _scaled(values: Float[np.ndarray, "values"], scale: Scale, nearest: float) -> Float[np.ndarray, "values"]:
    if scale == "any":
        return values
    if scale == "positive":
        logs: np.ndarray = np.log(np.maximum(values, nearest))
        return logs
    scaled: np.ndarray = logit(np.clip(values, nearest, 1 - nearest))
    return scaled


def _back(values: Float[np.ndarray, "values"], scale: Scale) -> Float[np.ndarray, "values"]:
    if scale == "any":
        return values
    back: np.ndarray = np.exp(values) if scale == "positive" else expit(values)
    return back


def difference_interval(
    first: tuple[float, Float[np.ndarray, "draws"]],
    second: tuple[float, Float[np.ndarray, "draws"]],
    n_fewer: int,
    *,
    scale: Scale = "share",
    nearest: float = 1e-4,
    level: float = 0.95,
) -> Interval:
    """Interval of first - second under the same draws: all differences of points in the ellipse of both figures.

    The ellipse lies on the scale of the figures (see `corrected_interval`), around both less their draws' lean, with
    the draws' covariance and the same reach; on scale `any` the result is the difference's own corrected interval
    (ours: near an AUROC of 1 the draws of a difference alone are too narrow, as those of each figure are). Two models
    that rank alike differ by exactly nothing. `first` and `second` are (value, draws); only draws in which both are
    defined count.
    """
    both = np.isfinite(first[1]) & np.isfinite(second[1])
    discarded, difference = 1.0 - float(both.mean()), first[0] - second[0]
    if not both.any() or not np.isfinite(difference):
        return Interval(np.nan, np.nan, discarded)
    angle = np.linspace(0, 2 * np.pi, _DIRECTIONS)
    moved = np.stack([_scaled(np.append(own[both], value), scale, nearest) for value, own in (first, second)])
    draws = moved[:, :-1] - moved[:, :-1].mean(axis=1, keepdims=True)
    centre = 2 * moved[:, -1] - moved[:, :-1].mean(axis=1)
    # Principal axes of the draws, so that equal draws give points that move together exactly.
    axes, lengths, _ = np.linalg.svd(draws / np.sqrt(draws.shape[1]), full_matrices=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    points = _reach(max(n_fewer, 2), level) * (axes * lengths) @ circle[: len(lengths)]
    ends = _back(centre[0] + points[0], scale) - _back(centre[1] + points[1], scale)
    return Interval(min(float(ends.min()), difference), max(float(ends.max()), difference), discarded)


def seed_interval(
    values: Float[np.ndarray, "seeds"],
    draws: Float[np.ndarray, "seeds draws"],
    n_fewer: int,
    *,
    level: float = 0.95,
) -> Interval:
    """Interval of a mean over training seeds, for other patients and other seeds than these.

    Its variance is what resampling patients, together with one seed fewer than there are, converges to: that of the
    seeds' mean under the patient draws, which all seeds share, plus the variance between seeds over their number. The
    degrees of freedom are Satterthwaite's: three seeds that differ much give a wide interval, three that agree the
    patients' own. What the same patients do to seeds differently is in both terms (ours: on the safe side). For the
    difference of two arms give the differences per seed. NaN for fewer than two seeds.
    """
    together = draws.mean(axis=0)
    defined = together[np.isfinite(together)]
    discarded = 1.0 - len(defined) / len(together)
    if len(values) < 2 or not len(defined) or not np.isfinite(values).all():
        return Interval(np.nan, np.nan, discarded)
    n, mean = max(n_fewer, 2), float(values.mean())
    patients = float(np.var(defined)) * n / (n - 1)
    seeds = float(np.var(values, ddof=1)) / len(values)
    spread = patients + seeds
    if spread == 0:
        return Interval(mean, mean, discarded)
    freedom = spread**2 / (patients**2 / (n - 1) + seeds**2 / (len(values) - 1))
    half = float(np.sqrt(spread) * stdtrit(freedom, (1 + level) / 2))
    centre = 2 * mean - float(defined.mean())
    return Interval(min(centre - half, mean), max(centre + half, mean), discarded)
