"""Intervals from bootstrap draws, chosen by how often they hold the truth when positives are few.

With few positives a bootstrap draw repeats some of them, and repeated positives raise average precision: draws lean
upwards. A percentile interval keeps that lean, twice over (once for the draws, once for the sample itself), so that the
one of a macro mean, where leans add up and spreads average out, can miss the truth three times in ten; and it is too
narrow, because ten positives know their own spread badly. `corrected_interval` takes away the lean of the draws and
widens by Student's t. `make proofs bootstrap_coverage` measures both; BUILD_NOTES.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import t as student


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
    share: bool,
    nearest: float = 1e-4,
    level: float = 0.95,
) -> Interval:
    """Normal interval around the value less the draws' lean, widened by Student's t for few patients of a class.

    Half the width is the draws' standard deviation times √(n / (n - 1)) times the quantile of Student's t with n - 1
    degrees of freedom, n = `n_fewer` (Hesterberg, Am Stat 2015;69:371, for a mean; ours: n counts the rarer class, as
    its members carry most of the spread). An interval always holds its value.

    Args:
        value: the figure itself.
        draws: the same figure under each bootstrap draw; undefined ones are left out.
        n_fewer: patients of the rarer class; of a macro mean the median label's. Below two it counts as two.
        share: the figure lies between 0 and 1 (AUROC, average precision): the interval is made on the logit scale and
            stays between them. False for differences.
        nearest: how close to 0 or 1 a share may come on the logit scale: half a (positive, negative) pair, say.
        level: of confidence.
    """
    defined = draws[np.isfinite(draws)]
    discarded = 1.0 - len(defined) / len(draws)
    if not len(defined) or not np.isfinite(value):
        return Interval(np.nan, np.nan, discarded)
    scaled = logit(np.clip(np.append(defined, value), nearest, 1 - nearest)) if share else np.append(defined, value)
    n = max(n_fewer, 2)
    half = float(np.std(scaled[:-1]) * np.sqrt(n / (n - 1)) * student.ppf((1 + level) / 2, n - 1))
    centre = 2 * scaled[-1] - scaled[:-1].mean()
    ends = np.array([centre - half, centre + half])
    low, high = expit(ends) if share else ends
    return Interval(min(float(low), value), max(float(high), value), discarded)


def seed_interval(
    values: Float[np.ndarray, "seeds"],
    draws: Float[np.ndarray, "seeds draws"],
    n_fewer: int,
    *,
    level: float = 0.95,
) -> Interval:
    """Interval of a mean over training seeds, for other patients and other seeds than these.

    The variance is that of the seeds' mean under the patient draws, which all seeds share, plus the variance between
    seeds over their number. Its degrees of freedom are Satterthwaite's: three seeds that differ much give a wide
    interval, three that agree the patients' own. The seeds' own values are noisy by the patients they share, which
    moves them together and so does not count as spread between them; that which moves them apart does, and is kept
    (ours: on the safe side). Differences of two arms: give the differences per seed, paired or of the means.
    """
    together = draws.mean(axis=0)
    defined = together[np.isfinite(together)]
    discarded = 1.0 - len(defined) / len(together)
    if len(values) < 2 or not len(defined) or not np.isfinite(values).all():
        return Interval(np.nan, np.nan, discarded)
    n = max(n_fewer, 2)
    patients = float(np.var(defined)) * n / (n - 1)
    seeds = float(np.var(values, ddof=1)) / len(values)
    spread = patients + seeds
    if spread == 0:
        return Interval(float(values.mean()), float(values.mean()), discarded)
    freedom = spread**2 / (patients**2 / (n - 1) + seeds**2 / (len(values) - 1))
    half = float(np.sqrt(spread) * student.ppf((1 + level) / 2, freedom))
    centre = float(2 * values.mean() - defined.mean())
    return Interval(min(centre - half, float(values.mean())), max(centre + half, float(values.mean())), discarded)
