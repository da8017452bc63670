"""How well hospital, age band and sex can be told from a cohort's cleaned reports alone.

What a text tower can read it can learn: if reports give away the hospital, pairs of ECG and report can be matched by
hospital instead of by heart. The gauge is a plain classifier on words; that it finds little proves nothing, that it
finds much is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

MIN_PATIENTS_PER_CLASS = 30
"""A class with fewer is left out, and a question with fewer than two classes is not answered (our choice): a fold then
has about six patients of it, below which an AUROC is noise."""
MAX_REPORTS = 20_000
"""More are drawn down to this, by patient: the gauge is then exact to about a percent and takes seconds
(10,653 reports of PTB-XL: 5 s a question on one core)."""
_AGE_BANDS = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"), (np.inf, "80 and over"))


@dataclass(frozen=True)
class Leakage:
    """How well one thing can be told from reports; numbers are means over folds of patients."""

    target: str
    n_reports: int
    n_patients: int
    classes: tuple[str, ...]
    """Those with enough patients, in alphabetical order; what is unknown is no class."""
    too_few: str
    """Why there are no numbers; empty if there are."""
    accuracy: float = float("nan")
    accuracy_majority: float = float("nan")
    """Of always saying the commonest class of the other folds."""
    auroc: float = float("nan")
    """Mean over classes, one against the rest; 0.5 = nothing can be told."""
    auroc_sd: float = float("nan")
    """Standard deviation over folds."""
    telling: tuple[str, ...] = ()
    """Terms with the largest weights, most telling first."""


def leakage_of_records(records: pa.Table, seed: int = 0) -> tuple[Leakage, ...]:
    """The gauge for hospital, age band and sex of a cohort's records (rows of `records-<split>.parquet`)."""
    first = records.filter(pc.equal(records["window_index"], 0))
    sex = [value if value != "unknown" else "" for value in first["sex"].to_pylist()]
    targets = {
        "hospital": first["site"].to_pylist(),
        "age band": [age_band(age) for age in first["age_years"].to_pylist()],
        "sex": sex,
    }
    texts, patients = first["report_clean"].to_pylist(), first["patient_id"].to_pylist()
    return tuple(gauge(texts, values, patients, target=name, seed=seed) for name, values in targets.items())


def age_band(age_years: float) -> str:
    """The band of an age in years; empty for NaN."""
    return "" if np.isnan(age_years) else next(name for below, name in _AGE_BANDS if age_years < below)


def gauge(
    texts: Sequence[str], values: Sequence[str], patients: Sequence[str], *, target: str, seed: int = 0
) -> Leakage:
    """How well `values` can be told from `texts`, cross-validated so that no patient is on both sides.

    Args:
        texts: cleaned reports.
        values: what is to be told, one per text; empty where unknown.
        patients: patient ids, one per text; an empty one is a patient of its own.
        target: name of what is to be told.
        seed: decides the folds, and which patients are taken from a large cohort.
    """
    groups = _groups(patients)
    labels = np.asarray(values, dtype=object)
    chosen = _drawn(groups, (labels != "") & _common(labels, groups), seed)
    text, label, group = np.asarray(texts, dtype=object)[chosen], labels[chosen].astype(str), groups[chosen]
    classes = tuple(np.unique(label).tolist())
    gauged = Leakage(target, len(label), len(np.unique(group)), classes, too_few="")
    if len(classes) < 2:
        found = f"{len(classes)} classes with at least {MIN_PATIENTS_PER_CLASS} patients; two are needed"
        return replace(gauged, too_few=found)
    from tfds_builders.common.report_classifier import cross_validated, telling_terms

    scores = cross_validated(text, label, group, seed)
    accuracy, accuracy_majority, auroc = np.nanmean(scores, axis=0).tolist()
    return replace(
        gauged,
        accuracy=accuracy,
        accuracy_majority=accuracy_majority,
        auroc=auroc,
        auroc_sd=float(np.nanstd(scores[:, 2], ddof=1)),
        telling=telling_terms(text, label, group),
    )


def _groups(patients: Sequence[str]) -> Int[np.ndarray, " texts"]:
    own = [patient or f"\0{i}" for i, patient in enumerate(patients)]
    _, groups = np.unique(own, return_inverse=True)
    return np.asarray(groups, np.int64)


def _common(labels: np.ndarray, groups: Int[np.ndarray, " texts"]) -> Bool[np.ndarray, " texts"]:
    """Which texts are of a class that enough patients have."""
    patients = {label: len(np.unique(groups[labels == label])) for label in set(labels.tolist())}
    return np.asarray([patients[label] >= MIN_PATIENTS_PER_CLASS for label in labels.tolist()], bool)


def _drawn(
    groups: Int[np.ndarray, " texts"], usable: Bool[np.ndarray, " texts"], seed: int
) -> Bool[np.ndarray, " texts"]:
    """Whole patients in random order until there are `MAX_REPORTS` usable texts."""
    rank = np.random.default_rng(seed).permutation(groups.max(initial=-1) + 1)[groups]
    reports = np.bincount(rank[usable], minlength=len(groups) + 1)
    last = int(np.searchsorted(np.cumsum(reports), MAX_REPORTS, side="right"))
    return np.asarray(usable & (rank < max(last, 1)), bool)
